"""The doors that the proofs call, on inputs so small that each call takes seconds; their processes and what they leave.

A door is a command of cram (`cram.train`, `cram.prepare`, ...), called with fixed words in a folder of its own.
"""

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

from cram.errors import CramError

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0  # seconds that a process may take to end by itself

# Sentences of the corpus: each noun has its verb.
VERBS = {
    "river": "crosses",
    "castle": "guards",
    "teacher": "teaches",
    "garden": "feeds",
    "letter": "reaches",
    "window": "opens",
    "soldier": "leaves",
    "winter": "visits",
    "market": "follows",
    "doctor": "heals",
    "engine": "moves",
    "island": "hides",
    "painter": "paints",
    "bridge": "watches",
}
NOUNS = tuple(VERBS)
ADJECTIVES = {1: ("fine", "lovely", "warm", "bright"), 0: ("poor", "dull", "cold", "grim")}  # by label in GLUE's tasks

DATA_WORDS = [
    "data.source=corpus/*.jsonl",
    "data.dir=shards",
    "data.tokens=null",
    "data.seq_len=32",
    "data.processes=2",
    "data.epochs=1000",
    "data.held_out=0.05",
    "wordpiece.vocab_size=128",
]
MODEL_WORDS = ["model.layers=2", "model.width=32", "model.heads=2", "model.mlp_width=64"]
TRAINING_WORDS = [
    "batch.tokens=512",
    "batch.micro_rows=8",
    "evaluation.tokens=2048",
    "log_interval=5",
    "device=cpu",
    "threads=1",
    "checkpoint.interval=0.3s",
]
RECIPE = ["recipe=bert_demo", *DATA_WORDS, *MODEL_WORDS, *TRAINING_WORDS]
GLUE_WORDS = [
    "run=run",
    "data=glue",
    "tasks=[cola,rte]",
    "seeds=2",
    "check_counts=false",
    "epochs=12",
    "to=out",
    "device=cpu",
    "threads=1",
]
TABLE = """about: two rates
budget: 100steps
baseline: low
arms:
  low: {words: [optimizer.lr=1e-3]}
  high: {words: [optimizer.lr=2e-3]}
"""
SHARDS = "shards/**/*.safetensors"
TIME_KEYS = {"seconds", "wall_seconds", "charged_seconds", "time"}  # of JSON files; they differ from call to call


@dataclass(frozen=True)
class Door:
    """A command of cram with its words.

    Args:
        name: of the command without `cram.`.
        words: the words of the command.
        results: globs of the files it writes that must be equal after every call, relative to the working folder.
        needs_run: whether the command takes a finished run.
    """

    name: str
    words: tuple[str, ...]
    results: tuple[str, ...]
    needs_run: bool

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", f"cram.{self.name}", *self.words]

    def start(self, folder: Path, log: Path) -> "subprocess.Popen[bytes]":
        """Start the command in a folder, with its output appended to a file."""
        with log.open("ab") as output:
            return subprocess.Popen(self.command, cwd=folder, stdout=output, stderr=output, env=environment())

    def hash_results(self, folder: Path) -> dict[str, str]:
        """Return the SHA-256 of each result by name of file. JSON is hashed without the keys that hold times."""
        paths = {path for pattern in self.results for path in folder.glob(pattern) if path.is_file()}
        return {str(path.relative_to(folder)): _hash(path) for path in sorted(paths)}


DOORS = {
    door.name: door
    for door in (
        Door(
            name="train",
            words=(*RECIPE, "run=run", "budget=300steps"),
            results=("run/*.safetensors", "run/recipe.yaml", "run/tokenizer.json", "run/export/*.json", SHARDS),
            needs_run=False,
        ),
        Door(
            name="prepare",
            words=tuple(RECIPE),
            results=(SHARDS, "shards/*/[!t]*.json*", "shards/*/tokenizer.json"),
            needs_run=False,
        ),
        Door(
            name="glue",
            words=tuple(GLUE_WORDS),
            results=("out/glue.json", "out/glue/*/*", "out/glue/submission.zip"),
            needs_run=True,
        ),
        Door(name="export", words=("run=run", "to=out"), results=("out/*",), needs_run=True),
        Door(
            name="ablate",
            words=("table=table.yaml", "dir=tables", *RECIPE),
            results=("tables/*/*/*.safetensors", "tables/*/*/export/*.json"),
            needs_run=False,
        ),
        Door(name="evaluate", words=("run=run", "device=cpu"), results=(), needs_run=True),
        # What is timed differs from one time to the next, so that no result can be compared.
        Door(
            name="plan",
            words=(*RECIPE, "budget=10s", "shapes=2", "seconds=0.1", "to=plan.yaml"),
            results=(),
            needs_run=False,
        ),
    )
}
WRITING_DOORS = [name for name, door in DOORS.items() if door.results]


def choose_doors(names: list[str]) -> list[Door]:
    """Return the doors of these names.

    Raises:
        CramError: there is no door of such a name.
    """
    for name in names:
        if name not in DOORS:
            raise CramError(f"doors={name} is unknown. Choose from {', '.join(DOORS)}.")
    return [DOORS[name] for name in names]


class Workspace:
    """Makes working folders for the doors: a corpus, GLUE files, a table of arms, and a finished run where needed.

    Args:
        folder: an empty folder that holds all working folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inputs = folder / "inputs"
        self._inputs_with_run = folder / "inputs_with_run"

    def new_folder(self, door: Door, name: str) -> Path:
        """Make a working folder for calls of a door; an older folder of this name is removed."""
        if not self._inputs.exists():
            _write_inputs(self._inputs)
        if door.needs_run and not self._inputs_with_run.exists():
            shutil.copytree(self._inputs, self._inputs_with_run)
            run_to_end(DOORS["train"], self._inputs_with_run, self.folder / "train.log")
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._inputs_with_run if door.needs_run else self._inputs, folder)
        return folder


def environment() -> dict[str, str]:
    """Return the environment of a door: one thread, the sources of this clone, and no questions to the Hub."""
    paths = f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_to_end(door: Door, folder: Path, log: Path) -> float:
    """Call a door, wait for it, and return its seconds. If it fails, print its log and end this program."""
    start = time.monotonic()
    status = door.start(folder, log).wait()
    if status:
        print(log.read_text(errors="replace")[-4000:])
        sys.exit(f"{door.name} ended with status {status}")
    return time.monotonic() - start


def find_partial(folder: Path) -> list[str]:
    """Return the hidden files and folders below a folder: what was begun and not finished. Locks do not count."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.endswith(".lock"))


def find_descendants(process: int) -> set[tuple[int, int]]:
    """Return all descendants of a process, each as its number and its start time."""
    descendants: set[tuple[int, int]] = set()
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            if (start_time := _start_time(child)) is not None:
                descendants |= {(child, start_time)} | find_descendants(child)
    return descendants


def kill_survivors(processes: set[tuple[int, int]]) -> int:
    """Wait until processes have ended by themselves, kill those that have not in time, and return their number."""
    deadline = time.monotonic() + PATIENCE
    while True:
        survivors = [number for number, start_time in processes if _start_time(number) == start_time]
        if not survivors or time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    for number in survivors:
        os.kill(number, signal.SIGKILL)
    return len(survivors)


def _start_time(process: int) -> int | None:
    """When a process started, in clock ticks; None if it has ended, even if its parent has not noticed yet."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] == "Z" else int(stat[19])


def _hash(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".json":
        value = _without_times(json.loads(data))
        value = {name: inner for name, inner in value.items() if name != "sha256"} if isinstance(value, dict) else value
        data = json.dumps(value).encode()
    return hashlib.sha256(data).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(inner) for name, inner in value.items() if name not in TIME_KEYS}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def _write_inputs(folder: Path) -> None:
    source = random.Random(0)
    (folder / "corpus").mkdir(parents=True)
    for part in range(3):
        lines = (json.dumps({"text": " ".join(_sentence(source) for _ in range(12))}) + "\n" for _ in range(700))
        (folder / "corpus" / f"{part}.jsonl").write_text("".join(lines))
    (folder / "table.yaml").write_text(TABLE)
    for split, rows in (("train", 160), ("dev", 40), ("test", 20)):
        _write_glue(folder / "glue", split, rows, source)


def _write_glue(folder: Path, split: str, rows: int, source: random.Random) -> None:
    """Write a split of CoLA and of RTE in GLUE's layout. The adjective of a row gives its label."""
    is_test = split == "test"
    cola = ["index\tsentence"] if is_test else []
    rte = ["index\tsentence1\tsentence2" if is_test else "index\tsentence1\tsentence2\tlabel"]
    for row in range(rows):
        label = row % 2
        text = f"the {source.choice(ADJECTIVES[label])} {source.choice(NOUNS)}"
        cola.append(f"{row}\t{text}" if is_test else f"gj04\t{label}\t*\t{text}")
        pair = f"{row}\t{text}\tthe {source.choice(NOUNS)}"
        rte.append(pair if is_test else f"{pair}\t{'entailment' if label else 'not_entailment'}")
    for task, lines in (("CoLA", cola), ("RTE", rte)):
        path = folder / task / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))


def _sentence(source: random.Random) -> str:
    which = source.randrange(len(NOUNS))
    adjective = source.choice(ADJECTIVES[which % 2])
    return f"The {adjective} {NOUNS[which]} {VERBS[NOUNS[which]]} the {source.choice(NOUNS)}."
