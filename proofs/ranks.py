"""`python -m proofs.ranks`: the same runs by one rank and by several, compared update by update."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.run.metrics import read_metrics
from proofs.doors import environment
from proofs.rank_cases import CASES, STEP_ROWS, UPDATES, Case

ABOUT = f"""Do the same runs by one rank and by several, started by torchrun, and compare them.

    python -m proofs.ranks ranks=[2,3] cases=[encoder_muon,rho]

Each run has {UPDATES} updates on CPUs, with a batch that grows and several micro-batches in each update. Compared with
one rank: the loss and the predicted tokens of each update, the weights at the end, the rows of each update and what is
hidden in them, and whether each row comes once. The last column is one rank that computes half as many rows at once,
which shows what another order of the same sums does. Exit status 1 if a difference is too large. Takes 25 minutes on
two cores."""
HALF = "1, half"  # name of the run on one rank with half the micro-batch
PATIENCE = 3600.0  # seconds for all runs of a number of ranks


@dataclass
class RanksConfig:
    """The keys of this proof."""

    source: str = key("pydocs", "text to train on, as data.source= of a recipe", path=True)
    ranks: list[int] = key([2, 3, 4], f"numbers of ranks, which divide {STEP_ROWS}", least=2, most=STEP_ROWS)
    cases: list[str] = key([], "runs (empty: all)")
    folder: str | None = key(None, "folder of the runs, which are kept (null: a temporary one)", path=True)


@dataclass(frozen=True)
class Run:
    """What is compared of a finished run.

    Attributes:
        train: the records of the updates. receipt: of the run. folder: of the run.
        rows: a line of `proofs.rank_worker.RowLog` for each row, of all ranks, sorted.
    """

    train: list[dict[str, Any]]
    receipt: dict[str, Any]
    folder: Path
    rows: list[Any]

    @classmethod
    def read(cls, folder: Path) -> "Run | None":
        """Read the run of a case; None if it has not finished."""
        if not (folder / "run" / "receipt.json").exists():
            return None
        lines = (line for path in folder.glob("rows-*.jsonl") for line in path.read_text().splitlines())
        records = read_metrics(folder / "run" / "metrics.jsonl")
        return cls(
            [record for record in records if record["kind"] == "train"],
            read_json(folder / "run" / "receipt.json"),
            folder / "run",
            sorted(json.loads(line) for line in lines),
        )

    def repeated_rows(self) -> int:
        """How many times a row of the data was trained on again in the same epoch."""
        times = Counter(tuple(number) for _, numbers, _ in self.rows for number in numbers)
        return sum(times.values()) - len(times)


@dataclass(frozen=True)
class Comparison:
    """How far a run is from that of one rank: as in `Case`, and what is wrong."""

    loss: float
    weights: float
    faults: list[str]


def compare(case: Case, one: Run, other: Run) -> Comparison:
    """Compare a run with that of one rank."""
    names = ("step", "positions", "flops")
    counts = [[[record.get(name) for name in names] for record in run.train] for run in (one, other)]
    pairs = list(zip(one.train, other.train, strict=False))
    loss = max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in pairs)
    before, after = (load_file(run.folder / "model.safetensors") for run in (one, other))
    weights = max(float((before[name] - after[name]).abs().max()) for name in before)
    is_equal = {
        "counts of an update": counts[0] == counts[1],
        "predicted tokens": one.receipt["predicted_tokens"] == other.receipt["predicted_tokens"],
        "executed work": one.receipt.get("executed") == other.receipt.get("executed"),
        "rows or masks": one.rows == other.rows or not case.same_rows,
    }
    faults = [f"other {name}" for name, equal in is_equal.items() if not equal]
    if case.once and (repeated := other.repeated_rows()):
        faults.append(f"{repeated} rows twice")
    faults += [] if loss <= case.loss else ["loss"]
    faults += [] if weights <= case.weights else ["weights"]
    return Comparison(loss, weights, faults)


def do_runs(config: RanksConfig, folder: Path, ranks: int, step_rows: int, names: list[str]) -> Iterator[str]:
    """Do the runs of all cases on a number of ranks. Yields what went wrong; a run that fails is left out."""
    left = [name for name in names if not (folder / name / "run" / "receipt.json").exists()]
    while left:
        words = [f"cases=[{','.join(left)}]", f"folder={folder}", f"source={config.source}", f"step_rows={step_rows}"]
        start = [] if ranks == 1 else ["torch.distributed.run", f"--nproc-per-node={ranks}", "-m"]
        command = [sys.executable, "-m", *start, "proofs.rank_worker", *words]
        log = folder / "log.txt"
        with log.open("a") as output:
            status = subprocess.run(
                command, stdout=output, stderr=output, env=environment(), check=False, timeout=PATIENCE
            ).returncode
        left = [name for name in left if not (folder / name / "run" / "receipt.json").exists()]
        if left:
            yield f"{left[0]} on {ranks} ranks: status {status}, see {log}\n{log.read_text()[-1500:]}"
            left = left[1:]


def main(words: list[str]) -> int:
    """Do the runs and print a table.

    Raises:
        CramError: a case is unknown, or a number of ranks does not divide the rows that are computed at once.
    """
    config = read_words(RanksConfig, words)
    for name in config.cases:
        if name not in CASES:
            raise CramError(f"cases={name} is unknown. Choose from {', '.join(CASES)}.")
    for ranks in config.ranks:
        if STEP_ROWS % ranks:
            raise CramError(f"ranks={ranks} does not divide {STEP_ROWS}.")
    with tempfile.TemporaryDirectory() as temporary:
        return prove(config, Path(config.folder or temporary).absolute(), config.cases or list(CASES))


def prove(config: RanksConfig, folder: Path, names: list[str]) -> int:
    """Do the runs of the cases below a folder, and compare them."""
    variants = {"1": (1, STEP_ROWS)} | {str(ranks): (ranks, STEP_ROWS) for ranks in config.ranks}
    variants[HALF] = (1, STEP_ROWS // 2)
    faults, began = 0, time.monotonic()
    for variant, (ranks, step_rows) in variants.items():
        place = folder / variant.replace(", ", "-")
        place.mkdir(parents=True, exist_ok=True)
        chosen = [name for name in names if variant != HALF or CASES[name].reordered]
        for fault in do_runs(config, place, ranks, step_rows, chosen):
            print(f"WRONG: {fault}", flush=True)
            faults += 1
    others = list(variants)[1:]
    print("largest differences from one rank: of the loss of an update, relative / of a weight at the end")
    print("| case |" + "".join(f" {name} |" for name in others) + "\n|---|" + "---|" * len(others))
    for name in names:
        cells, wrong = [], []
        one, *runs = (Run.read(folder / variant.replace(", ", "-") / name) for variant in variants)
        for variant, run in zip(others, runs, strict=True):
            if variant == HALF and not CASES[name].reordered:
                cells.append("")
                continue
            if one is None or run is None:
                cells.append("no run")
                continue
            found = compare(CASES[name], one, run)
            cells.append(f"{found.loss:.0e} / {found.weights:.0e}")
            if variant != HALF:
                wrong += [f"{variant}: {fault}" for fault in found.faults]
        faults += len(wrong)
        reason = f" ({CASES[name].why})" if CASES[name].why else ""
        print(
            f"| {name}{reason} |" + "".join(f" {cell} |" for cell in cells) + (f"  <- WRONG {wrong}" if wrong else "")
        )
    print(f"{faults} wrong, {time.monotonic() - began:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    run_door(main, RanksConfig, ABOUT)
