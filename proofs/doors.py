"""The doors that write, on a corpus that takes each of them seconds; their processes and what they leave behind."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 60.0  # seconds for what must end by itself
THINGS = (
    "river", "castle", "teacher", "garden", "letter", "window", "soldier", "winter", "market", "doctor", "engine",
    "island", "painter", "bridge",
)  # fmt: skip
DEEDS = (
    "crosses", "guards", "teaches", "feeds", "reaches", "opens", "leaves", "visits", "follows", "heals", "moves",
    "hides", "paints", "watches",
)  # fmt: skip
ADJECTIVES = {1: ("fine", "lovely", "warm", "bright"), 0: ("poor", "dull", "cold", "grim")}
RECIPE = [
    "recipe=bert_demo", "data.source=corpus/*.jsonl", "data.dir=shards", "data.tokens=null", "data.seq_len=32",
    "data.processes=2", "data.epochs=1000", "data.held_out=0.05", "wordpiece.vocab_size=128", "model.layers=2",
    "model.width=32", "model.heads=2", "model.mlp_width=64", "batch.tokens=512", "batch.micro_rows=8",
    "evaluation.tokens=2048", "log_interval=5", "device=cpu", "threads=1", "checkpoint.interval=0.3s",
]  # fmt: skip
TABLE = "about: two rates\nbudget: 100steps\nbaseline: low\narms:\n"
TABLE += "  low: {words: [optimizer.lr=1e-3]}\n  high: {words: [optimizer.lr=2e-3]}\n"
SHARDS = "shards/**/*.safetensors"
# What is told of time, and differs from call to call.
OF_TIME = {"seconds", "wall_seconds", "charged_seconds", "time"}


@dataclass(frozen=True)
class Door:
    """A command, as it is said in a folder of its own."""

    name: str
    words: tuple[str, ...]
    results: tuple[str, ...]  # globs of the files that must not differ, in that folder
    of_a_run: bool  # whether it takes a finished run

    def start(self, folder: Path, log: Path) -> "subprocess.Popen[bytes]":
        """The command, its output in a file."""
        with log.open("ab") as output:
            return subprocess.Popen(self.command, cwd=folder, stdout=output, stderr=output, env=environment())

    @property
    def command(self) -> list[str]:
        """What is called."""
        return [sys.executable, "-m", f"cram.{self.name}", *self.words]

    def files(self, folder: Path) -> dict[str, str]:
        """The sha256 of each result, of JSON without what is told of time."""
        found = {path for pattern in self.results for path in folder.glob(pattern) if path.is_file()}
        return {str(path.relative_to(folder)): _digest(path) for path in sorted(found)}


DOORS = {
    door.name: door
    for door in (
        Door(
            "train", (*RECIPE, "run=run", "budget=300steps"),
            ("run/*.safetensors", "run/recipe.yaml", "run/tokenizer.json", "run/export/*.json", SHARDS), of_a_run=False,
        ),
        Door("prepare", tuple(RECIPE), (SHARDS, "shards/*/[!t]*.json*", "shards/*/tokenizer.json"), of_a_run=False),
        Door(
            "glue", ("run=run", "data=glue", "tasks=[cola,rte]", "seeds=2", "check_counts=false", "epochs=12", "to=out",
                     "device=cpu", "threads=1"),
            ("out/glue.json", "out/glue/*/*", "out/glue/submission.zip"), of_a_run=True,
        ),
        Door("export", ("run=run", "to=out"), ("out/*",), of_a_run=True),
        Door(
            "ablate", ("table=table.yaml", "dir=tables", *(word for word in RECIPE if "budget" not in word)),
            ("tables/*/*/*.safetensors", "tables/*/*/export/*.json"), of_a_run=False,
        ),
        Door("evaluate", ("run=run", "device=cpu"), (), of_a_run=True),
    )
}  # fmt: skip


class Bench:
    """A folder with a corpus, GLUE files, a table of arms and, for the doors that take one, a finished run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plain = folder / "plain"
        self._with_run = folder / "with_run"

    def fresh(self, door: Door, name: str) -> Path:
        """A new folder for a door's calls."""
        if not self._plain.exists():
            _write_inputs(self._plain)
        if door.of_a_run and not self._with_run.exists():
            shutil.copytree(self._plain, self._with_run)
            finish(DOORS["train"], self._with_run, self.folder / "train.log")
        here = self.folder / name
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self._with_run if door.of_a_run else self._plain, here)
        return here


def environment() -> dict[str, str]:
    """One thread each, this clone's sources, and no question to the Hub."""
    paths = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def finish(door: Door, folder: Path, log: Path) -> float:
    """Call a door and wait for it; its seconds. Ends this program where the door fails."""
    began = time.monotonic()
    status = door.start(folder, log).wait()
    if status:
        print(log.read_text(errors="replace")[-4000:])
        sys.exit(f"{door.name} ended with status {status}")
    return time.monotonic() - began


def partial(folder: Path) -> list[str]:
    """Names of the hidden files and folders below a folder, but for locks: what was begun and not finished."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.endswith(".lock"))


def family(process: int) -> set[tuple[int, int]]:
    """The processes that a process has begun, and those that they have, each with its time of birth."""
    found: set[tuple[int, int]] = set()
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            if (born := _born(child)) is not None:
                found |= {(child, born)} | family(child)
    return found


def left(processes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those that still run after a time that is enough to save; they are ended."""
    until = time.monotonic() + PATIENCE
    while (alive := {(number, born) for number, born in processes if _born(number) == born}) and (
        time.monotonic() < until
    ):
        time.sleep(0.05)
    for number, _ in alive:
        os.kill(number, signal.SIGKILL)
    return alive


def _born(process: int) -> int | None:
    """When a process began; None for one that has ended, though it may wait to be reaped."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] == "Z" else int(stat[19])


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        value = _without_time(json.loads(data))
        value = {name: one for name, one in value.items() if name != "sha256"} if isinstance(value, dict) else value
        data = json.dumps(value).encode()
    return hashlib.sha256(data).hexdigest()


def _without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_time(one) for name, one in value.items() if name not in OF_TIME}
    return [_without_time(one) for one in value] if isinstance(value, list) else value


def _write_inputs(folder: Path) -> None:
    source = random.Random(0)
    (folder / "corpus").mkdir(parents=True)
    for part in range(3):
        lines = (json.dumps({"text": " ".join(_sentence(source) for _ in range(12))}) + "\n" for _ in range(700))
        (folder / "corpus" / f"{part}.jsonl").write_text("".join(lines))
    (folder / "table.yaml").write_text(TABLE)
    for split, count in (("train", 160), ("dev", 40), ("test", 20)):
        cola, rte = [], ["index\tsentence1\tsentence2" + "\tlabel" * (split != "test")]
        for row in range(count):
            good = row % 2
            one = f"the {source.choice(ADJECTIVES[good])} {source.choice(THINGS)}"
            cola.append(f"{row}\t{one}" if split == "test" else f"gj04\t{good}\t*\t{one}")
            label = f"\t{'entailment' if good else 'not_entailment'}" * (split != "test")
            rte.append(f"{row}\t{one}\tthe {source.choice(THINGS)}{label}")
        for task, lines in (("CoLA", ["index\tsentence"] * (split == "test") + cola), ("RTE", rte)):
            path = folder / "glue" / task / f"{split}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(line + "\n" for line in lines))


def _sentence(source: random.Random) -> str:
    which = source.randrange(len(THINGS))
    return f"The {source.choice(ADJECTIVES[which % 2])} {THINGS[which]} {DEEDS[which]} the {source.choice(THINGS)}."
