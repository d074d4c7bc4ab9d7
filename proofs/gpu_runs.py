"""The runs of `proofs.two_gpus`: how they are started, compared, disturbed and timed."""

import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from cram.config.recipe import keep_last_words
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.run.metrics import read_metrics
from proofs.doors import environment, find_descendants, kill_survivors
from proofs.rank_trial import find_ranks

UPDATES = 30
LONG = 1000  # updates of the run that is disturbed
STEP_ROWS = 16  # rows that all ranks compute at once
PATIENCE = 1800.0  # seconds that a run may take, compilation included
LONGEST_END = 60.0  # seconds from the death of a rank to the end of all processes
SEQ_LEN = 128
DATA = [
    "recipe=bert_demo",
    "data.tokens=2000000",
    f"data.seq_len={SEQ_LEN}",
    "data.epochs=1000",
    "wordpiece.vocab_size=8192",
    "model.size=given",
    "evaluation.tokens=16384",
    "evaluation.interval=null",
    "log_interval=1",
    "report.live=false",
]
SMALL = [
    "model.layers=4",
    "model.width=128",
    "model.heads=2",
    "model.mlp_width=192",
    f"batch.tokens={4 * STEP_ROWS * SEQ_LEN}",
    f"batch.start_tokens={2 * STEP_ROWS * SEQ_LEN}",
    f"budget={UPDATES}steps",
]
# On a CPU.
TINY_DATA = ["data.tokens=100000", "data.seq_len=32", "wordpiece.vocab_size=512", "threads=1"]
TINY = ["model.layers=2", "model.width=32", "model.heads=2", "model.mlp_width=48", f"budget={UPDATES}steps"]
TINY += [f"batch.tokens={2 * STEP_ROWS * 32}", f"batch.start_tokens={STEP_ROWS * 32}"]
LARGE = ["model.layers=12", "model.width=768", "model.heads=12", "model.mlp_width=1152", "batch.start_tokens=null"]
FP32 = ("precision=fp32", "optimizer.muon.products=fp32", "compile.kind=eager")


@dataclass(frozen=True)
class Case:
    """A run by one rank and by several.

    Attributes:
        name: of the case. words: of the command, beside those of all runs.
        loss: largest difference of the loss of an update, relative to the loss.
        weights: largest norm of the difference of a tensor of weights, relative to the norm of the tensor.
        compiled: what must have been compiled, as `kind` and `cuda_graphs` of the receipt say it.
    """

    name: str
    words: tuple[str, ...]
    loss: float = 1e-5
    weights: float = 1e-4
    compiled: tuple[str, bool] = ("eager", False)


# Updates of one size, because a growing one would grow by other steps if fewer rows are computed at once.
BF16 = ("precision=bf16", "optimizer.kind=muon", "batch.start_tokens=null")
EQUAL = (
    Case("fp32 adamw", (*FP32, "optimizer.kind=adamw", "optimizer.lr=1e-3")),
    Case("fp32 muon", (*FP32, "optimizer.kind=muon")),
)
VARIANTS = (
    Case("bf16", (*BF16, "compile.kind=eager")),
    Case("bf16 blocks", (*BF16, "compile.kind=blocks"), compiled=("blocks", False)),
)
GPU_VARIANTS = (
    Case(
        "bf16 blocks, CUDA graphs",
        (*BF16, "compile.kind=blocks", "compile.cuda_graphs=true"),
        compiled=("blocks", True),
    ),
    Case("bf16 varlen", (*BF16, "compile.kind=blocks", "model.attention=varlen"), compiled=("blocks", False)),
)
SPEED = (
    Case("eager", (*BF16, "compile.kind=eager")),
    Case("blocks", (*BF16, "compile.kind=blocks"), compiled=("blocks", False)),
)


@dataclass(frozen=True)
class Place:
    """Where and on what the runs are done.

    Attributes:
        folder: of the runs and of the data. device: cuda or cpu. ranks: that share a run. source: text to train on.
    """

    folder: Path
    device: str
    ranks: int
    source: str

    def words(self, words: Sequence[str], ranks: int, run: Path) -> list[str]:
        """The words of `cram.train`."""
        data = [*DATA, f"data.source={self.source}", f"data.dir={self.folder / 'shards'}", f"device={self.device}"]
        data += TINY_DATA if self.device == "cpu" else []
        return keep_last_words([*data, f"run={run}", f"batch.micro_rows={STEP_ROWS // ranks}", *words])

    @property
    def small(self) -> list[str]:
        """The words of a small model and of few updates."""
        return TINY if self.device == "cpu" else SMALL

    def variants(self) -> tuple[Case, ...]:
        """The cases that are not exact, as far as the device has them."""
        return VARIANTS if self.device == "cpu" else VARIANTS + GPU_VARIANTS

    def speed_cases(self) -> tuple[Case, ...]:
        """The cases that are timed."""
        return SPEED[:1] if self.device == "cpu" else SPEED

    def speed_words(self, ranks: int) -> list[str]:
        """The words of a run that is timed: each rank has the same rows, as many as a large GPU computes at once."""
        if self.device == "cpu":
            return [*self.small, "budget=12steps"]
        rows = 256
        return [*LARGE, f"batch.tokens={4 * rows * SEQ_LEN * ranks}", f"batch.micro_rows={rows}", "budget=60steps"]

    def start(self, words: Sequence[str], ranks: int, log: Path) -> "subprocess.Popen[bytes]":
        """Start `cram.train` on so many ranks, with its output appended to a file."""
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *torchrun, "cram.train", *words], stdout=output, stderr=output, env=environment()
            )

    def finish(self, words: Sequence[str], ranks: int, run: Path) -> None:
        """Do a run to its end.

        Raises:
            CramError: it has failed or takes too long.
        """
        log = run.with_name(f"{run.name}.log")
        process = self.start(words, ranks, log)
        children = set()
        try:
            status: int | str = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            children, status = find_descendants(process.pid), "no end"
            process.terminate()
        finally:
            if process.poll() is None:
                process.wait(LONGEST_END)
            kill_survivors(children)
        if status:
            raise CramError(f"the run {run.name} has failed ({status}):\n{log.read_text(errors='replace')[-3000:]}")


@dataclass(frozen=True)
class Run:
    """A finished run: its receipt, the records of its updates, and its folder."""

    receipt: dict[str, Any]
    train: list[dict[str, Any]]
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a run folder."""
        records = read_metrics(folder / "metrics.jsonl")
        return cls(
            read_json(folder / "receipt.json"), [record for record in records if record["kind"] == "train"], folder
        )


def run_case(place: Place, case: Case, words: Sequence[str], ranks: int) -> Run:
    """Do the run of a case, unless it is there already.

    Raises:
        CramError: the run has failed.
    """
    run = place.folder / f"{case.name.replace(', ', '-').replace(' ', '-')}-{len(words)}-{ranks}"
    if not (run / "receipt.json").exists():
        place.finish(place.words([*words, *case.words], ranks, run), ranks, run)
    return Run.read(run)


def compare(case: Case, one: Run, several: Run) -> dict[str, Any]:
    """Compare a run by several ranks with the one by one rank.

    Returns:
        The largest relative differences of a loss and of a tensor of weights, and what is wrong.
    """
    loss, weights = _differences(one, several)
    wrong = [] if loss <= case.loss else [f"loss differs by {loss:.1e}"]
    wrong += [] if weights <= case.weights else [f"weights differ by {weights:.1e}"]
    wrong += _different_counts(one.receipt, several.receipt)
    for run in (one, several):
        compiled = run.receipt["compile"]
        if (compiled["kind"], compiled["cuda_graphs"]) != case.compiled:
            wrong.append(f"compiled: {compiled['kind']}, {compiled['failed']}")
    return {"loss": loss, "weights": weights, "wrong": wrong}


def compare_orders(place: Place) -> dict[str, Any]:
    """Compare the run in bf16 by one rank with one that computes half as many rows at once: the same sums in parts."""
    whole = run_case(place, VARIANTS[0], place.small, 1)
    half = run_case(place, VARIANTS[0], [*place.small, f"batch.micro_rows={STEP_ROWS // 2}"], 1)
    loss, weights = _differences(whole, half)
    return {
        "case": "bf16, half as many rows at once",
        "loss": loss,
        "weights": weights,
        "wrong": _different_counts(whole.receipt, half.receipt),
    }


def _different_counts(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two receipts differ that depends on the rows of all updates only."""
    names = ("predicted_tokens", "positions", "updates", "rows_read", "repeated_rows")
    return [f"{name}: {other[name]}, not {one[name]}" for name in names if one[name] != other[name]]


def _differences(one: Run, several: Run) -> tuple[float, float]:
    """Relative differences of the losses and of the weights; infinite where they cannot be compared."""
    if len(one.train) != len(several.train):
        return math.inf, math.inf
    pairs = list(zip(one.train, several.train, strict=True))
    if any(record["loss"] is None for pair in pairs for record in pair):
        return math.inf, math.inf
    loss = max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in pairs)
    before, after = (load_file(run.folder / "model.safetensors") for run in (one, several))
    ratios = []
    for name, weight in before.items():
        difference, norm = float((weight - after[name]).norm()), float(weight.norm())
        ratio = difference / norm if norm else difference
        ratios.append(ratio if math.isfinite(ratio) else math.inf)  # NaN would be lost in a maximum
    return loss, max(ratios)


def pace_of(run: Run) -> dict[str, Any]:
    """The pace of a run, as the median of its later updates, and what its receipt says about the ranks."""
    paces = [record["tokens_per_second"] for record in run.train[len(run.train) // 2 :]]
    return {
        "tokens_per_second": statistics.median(paces),
        "mfu": run.receipt["mfu"],
        "compile": run.receipt["compile"]["kind"],
        "micro_rows": run.receipt["micro_rows"],
        "ranks": run.receipt["ranks"],
    }


def disturb(place: Place) -> dict[str, Any]:
    """Kill the last rank of a run with SIGKILL, and resume the run to its end.

    Returns:
        Seconds until all processes had ended, the last line that they said, and what is wrong.
    """
    run, log = place.folder / "killed", place.folder / "killed.log"
    shutil.rmtree(run, ignore_errors=True)
    words = [*place.small, *EQUAL[0].words, "checkpoint.interval=0.5s", f"budget={LONG}steps"]
    wrong: list[str] = []
    process = place.start(place.words(words, place.ranks, run), place.ranks, log)
    found = _wait_for_update(run, process)
    children = find_descendants(process.pid)
    began = time.monotonic()
    if found:
        os.kill(find_ranks(process.pid)[place.ranks - 1], signal.SIGKILL)
    else:
        wrong.append(f"the run has not come to a checkpoint: {log.read_text(errors='replace')[-1000:]}")
        process.terminate()
    try:
        process.wait(LONGEST_END)
    except subprocess.TimeoutExpired:
        process.kill()
        wrong.append("torchrun hangs")
    seconds = time.monotonic() - began
    if survivors := kill_survivors(children):
        wrong.append(f"{survivors} processes are left behind")
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("cram: ")]
    if found:
        wrong += _resume(place, run, words)
    return {"seconds": seconds, "said": lines[-1] if lines else None, "wrong": wrong}


def _resume(place: Place, run: Path, words: Sequence[str]) -> list[str]:
    """Let a run go on to its end, and say in what it differs from a run that nothing disturbed."""
    place.finish(place.words(words, place.ranks, run), place.ranks, run)
    receipt = Run.read(run).receipt
    undisturbed = run_case(place, Case("undisturbed", ()), words, place.ranks).receipt
    wrong = _different_counts(undisturbed, receipt)
    wrong += [] if len(receipt["processes"]) == 2 else [f"{len(receipt['processes'])} processes in the receipt"]
    return wrong


def _wait_for_update(run: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until a run has made updates after a checkpoint; False if it ends before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        saved = [int(path.name) for path in (run / "checkpoints").glob("[0-9]*")]
        if any(saved) and read_metrics(run / "metrics.jsonl")[-1:]:
            return True
        time.sleep(0.02)
    return False
