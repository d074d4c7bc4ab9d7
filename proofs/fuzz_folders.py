"""Cases of the fuzz proof: shard, run, export and GLUE folders with one file damaged, and real runs with odd values.

What a command makes of a damaged folder must be what it makes of the sound one, unless it says what it found.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cram.files.atomic import read_json, sha256_file
from proofs.damage import edited_json
from proofs.doors import DOORS, RECIPE, Bench, finish
from proofs.fuzz_run import Case, Result
from proofs.fuzz_words import word_case

HALF = [*RECIPE, "run=half", "budget=400steps"]
GLUE = [word for word in DOORS["glue"].words if not word.startswith("seeds=")]
NEW = ["model.kind=crammed", "budget=3steps", "run=new"]
SAID = ("warning:", "passed over", "made again", "made anew")
# By the command: its words, the folder in which something is damaged, and what of its results must be the same.
USES: dict[str, tuple[list[str], str, tuple[str, ...]]] = {
    "evaluate": (["evaluate", "run=run", "device=cpu"], "run", ()),
    "finished": (["train", *DOORS["train"].words], "run", ()),
    "export": (["export", "run=run", "to=made"], "run", ("made/model.safetensors", "made/config.json")),
    "resume": (["train", *HALF], "half", ("half/model.safetensors", "half/held_out.safetensors")),
    "verify": (["prepare", "verify=shards/SET"], "shards", ()),
    "shards": (
        ["train", *HALF, "model.kind=crammed", "run=new", "budget=3steps"],
        "shards",
        ("new/model.safetensors",),
    ),
    "glue": (["glue", *DOORS["glue"].words[1:]], "out", ("out/glue/submission.zip",)),
    "start": (["glue", "run=run/export", *DOORS["glue"].words[2:]], "run/export", ("out/glue/submission.zip",)),
}
# Files that say nothing of what comes out: a lock, a picture, and what is told of time.
DERIVED = re.compile(r"\.lock$|\.png$|heartbeat\.json$|timing\.json$|tensorboard/|\.log$|README\.md$|\.zip$")
# Values for real runs, by the key.
ODD_VALUES = """optimizer.lr: 0 1e-30 1e30 1e300 10
optimizer.beta1: 0 0.999999999
optimizer.beta2: 0 0.999999999999
optimizer.eps: 1e-30 0.99
optimizer.clip: null 1e-30 1e30
optimizer.weight_decay: 0 1e30 1e3
optimizer.final_decay: 0 1e9
optimizer.kind: muon
optimizer.embedding_lr: 0 1e9
optimizer.muon.lr: 0 1e9
optimizer.muon.newton_schulz_steps: 1 100
optimizer.muon.momentum: 0 0.999999
optimizer.muon.cautious: true
model.norm_eps: 1e-15 0.99
model.init_std: 1e-30 10
model.rope_theta: 1.0000001 1e12
model.zero_init: false
model.width: 2 6 16
model.heads: 1 16
model.mlp_width: 1 3
model.layers: 1 20
objective.mask_rate: 1e-9 1
objective.final_mask_rate: null 1 1e-9
objective.causal_share: 0.99 1e-9
objective.replace_mask: 0
objective.replace_random: 0
schedule.kind: cosine triangle trapezoid budget-triangle2
schedule.warmup: 0 0.999
schedule.peak: 0 0.99
batch.tokens: 1 33 4096
batch.start_tokens: 1 9999
batch.ramp: 0 1
batch.micro_rows: 1 3
averaging.start: 0 0.99
averaging.decay: 1e-9 0.999
faults.patience: 1
faults.rollbacks: 0
faults.spike: 1e-9
evaluation.tokens: 1 33
evaluation.mask_rate: 1e-9 1
evaluation.interval: 1e-6 1
log_interval: 1 1000000000
seed: 9223372036854775807
threads: 1
data.order: likely_first unlikely_first
model.attention: softmax sdpa
precision: bf16 fp32 fp16
data.epochs: 1 1000000
budget: 1steps 1tokens 0.001s 100tokens
checkpoint.interval: 0s 1h 0.001s"""
_base: list[Path] = []
_right: dict[str, Any] = {}


def make_base(folder: Path) -> None:
    """Make the folders that the cases copy: a finished run, one half done, shards and GLUE results."""
    bench = Bench(folder)
    here = bench.fresh(DOORS["evaluate"], "base")
    finish(DOORS["glue"], here, folder / "glue.log")
    door = DOORS["train"]
    half = type(door)("train", tuple(HALF), (), of_a_run=False)
    process = half.start(here, folder / "half.log")
    while not list(here.glob("half/checkpoints/[1-9]*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait()
    _base.append(here)


def _copy(folder: Path) -> None:
    shutil.copytree(_base[0], folder, dirs_exist_ok=True)


def _words(use: str, folder: Path) -> list[str]:
    (manifest,) = (folder / "shards").glob("*/manifest.json") if use == "verify" else (Path(),)
    return [word.replace("SET", manifest.parent.name) for word in _last_of_each(USES[use][0])]


def _last_of_each(words: list[str]) -> list[str]:
    return list({word.partition("=")[0]: word for word in words}.values())


def outcome(use: str, folder: Path, result: Result) -> Any:
    """What a command made: the results that must be the same, and its figures."""
    files = {name: sha256_file(folder / name) for name in USES[use][2] if not name.endswith(".zip")}
    figures = re.findall(r"[\d.]+ nats per token", result.out)
    if USES[use][1] in ("out", "run/export"):
        results = read_json(folder / "out/glue.json")["results"]
        figures = [results["scores"], results["mean"]]
    return [files, figures]


def folders(source: random.Random, count: int) -> Iterator[Case]:
    """One file of a folder damaged, and the folder used."""
    quick, slow = ("evaluate", "verify"), ("finished", "export", "resume", "shards", "glue", "start")
    for _ in range(count):
        use = source.choice(slow if source.random() < 0.25 else quick)
        seed = source.getrandbits(64)
        about = f"{use}, damage {seed}"
        yield Case("folders", about, _maker(use, seed), _judge(use, seed), 120.0)


def _maker(use: str, seed: int) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        _copy(folder)
        words = _words(use, folder)
        damage(folder / USES[use][1], random.Random(seed))
        return words

    return make


def damage(folder: Path, source: random.Random) -> tuple[str, str]:
    """Damage one file of a folder. Its name, and how."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path = source.choice(paths)
    how, data = source.choice(DAMAGES), path.read_bytes()
    name = str(path.relative_to(folder))
    if how == "field" and path.suffix == ".json":
        _, content = source.choice(list(edited_json(json.loads(data))))
        path.write_text(json.dumps(content, indent=2))
        return name, how
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "a dangling link":
        path.symlink_to("nowhere")
    elif how == "another file":
        path.write_bytes(source.choice([one for one in paths if one != path] or [path]).read_bytes())
    elif how != "gone":
        at = source.randrange(max(1, len(data)))
        flipped = data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :] if data else b"x"
        odd = {"cut": data[:at], "empty": b"", "tail": data + b"\n", "zeros": bytes(len(data))}
        path.write_bytes(odd.get(how, flipped))
    return name, how


DAMAGES = (
    "field", "field", "bit", "bit", "cut", "empty", "tail", "zeros", "gone", "another file", "a folder", "a pipe",
    "a dangling link",
)  # fmt: skip


def _judge(use: str, seed: int) -> Callable[[Path, Result], str]:
    def judge(folder: Path, result: Result) -> str:
        if any(word in result.out + result.err for word in SAID):
            return ""
        again = folder.with_name(f"{folder.name}-again")
        shutil.copytree(_base[0] / USES[use][1], again)
        name, how = damage(again, random.Random(seed))
        shutil.rmtree(again)
        if use == "verify" and how == "gone" and "/orders/" in name:
            return ""  # made when it is needed
        if use == "verify" and not DERIVED.search(name):
            whole = (folder / USES[use][1] / name).is_file() and how in ("field", "tail")
            return (
                "" if whole and _same_json(folder / "shards" / name, _base[0] / "shards" / name) else f"{name}: {how}"
            )
        made = outcome(use, folder, result)
        return "" if made == _expected(use, folder) else f"{name}: {how}: another result without a word"

    return judge


def _same_json(one: Path, other: Path) -> bool:
    return one.suffix == ".json" and one.is_file() and json.loads(one.read_text()) == json.loads(other.read_text())


def _expected(use: str, folder: Path) -> Any:
    """What the command makes of the sound folder; found once by each process."""
    from proofs.fuzz_run import run_case

    if use not in _right:
        here = folder.with_name(f"sound-{use}")

        def make(here: Path) -> list[str]:
            _copy(here)
            return _words(use, here)

        result = run_case(Case("folders", use, make, lambda *_: "", 300.0), here)
        _right[use] = outcome(use, here, result)
        shutil.rmtree(here)
    return _right[use]


def runs(source: random.Random, count: int) -> Iterator[Case]:
    """Real runs of three updates with odd values of what steers the training."""
    odd = {line.partition(":")[0]: line.partition(":")[2].split() for line in ODD_VALUES.splitlines()}
    base = ["train", *RECIPE, *NEW]
    for _ in range(count):
        names = source.sample(list(odd), source.choice([1, 1, 2, 3]))
        said = [f"{name}={source.choice(odd[name])}" for name in names]

        def make(folder: Path, words: tuple[str, ...] = tuple(_last_of_each([*base, *said]))) -> list[str]:
            for name in ("corpus", "shards"):
                shutil.copytree(_base[0] / name, folder / name)
            return list(words)

        yield Case("runs", " ".join(said), make, _judge_run(said), 120.0)


def _judge_run(said: list[str]) -> Callable[[Path, Result], str]:
    """A finished run keeps the values typed, and its figures are numbers."""
    dry = word_case("runs", "train", said).judge

    def judge(folder: Path, result: Result) -> str:
        receipt = read_json(folder / "new/receipt.json")
        recipe = (folder / "new/recipe.yaml").read_text()
        nats = receipt["held_out"]["nats_per_token"]
        if receipt["failed"] or not isinstance(nats, float) or receipt["updates"] < 1:
            return f"status 0 of a run with {nats} nats after {receipt['updates']} updates: {receipt['failed']}"
        return dry(folder, Result(0, f"{recipe}\n\n", "", False, 0.0))

    return judge


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"folders": folders, "runs": runs}
