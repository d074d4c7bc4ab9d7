"""The runs that laws are fitted to, read from the receipts of a folder."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from cram.errors import CramError
from cram.run.checksums import RECEIPT, RECIPE, is_finished, read_receipt, read_run_config

SAME = 1.05  # figures of runs that differ by a smaller factor count as the same: an update more or less


@dataclass(frozen=True)
class RunKind:
    """What the runs of one fit must share, because losses are comparable only then.

    Attributes:
        text: value of `data.source`.
        vocab_size: number of tokens in the vocabulary.
        objective: in words, as receipts have it.
        model: value of `model.kind`.
    """

    text: str
    vocab_size: int
    objective: str
    model: str


@dataclass(frozen=True)
class FittedRun:
    """The figures of a finished run.

    Attributes:
        name: of its folder.
        kind: what it shares with the other runs of a fit.
        parameters: number without the embedding.
        tokens: positions that it was trained on, repeated ones included.
        batch: mean tokens of an update.
        epochs: how often it saw its data; up to 1 nothing was repeated.
        nats: held-out loss, nats per predicted token.
        unigram_nats: the same of the unigram baseline.
    """

    name: str
    kind: RunKind
    parameters: float
    tokens: float
    batch: float
    epochs: float
    nats: float
    unigram_nats: float

    @property
    def relative_loss(self) -> float:
        """Held-out loss as a share of the unigram baseline's."""
        return self.nats / self.unigram_nats

    @property
    def updates(self) -> float:
        """Number of updates."""
        return self.tokens / self.batch


def read_runs(folder: Path) -> list[FittedRun]:
    """Read the finished runs in a folder, such as one that `cram.ablate` has made.

    Runs that failed are left out, with a printed line.

    Returns:
        The runs, by the names of their folders.

    Raises:
        CramError: the folder holds no run, a run is not finished, or none has a usable model.
    """
    paths = sorted(path.parent for path in folder.glob(f"*/{RECIPE}"))
    if not paths:
        raise CramError(f"fit={folder}: there is no run. Name the folder of a table that cram.ablate has made.")
    unfinished = [path.name for path in paths if not is_finished(path)]
    if unfinished:
        raise CramError(
            f"fit={folder}: unfinished runs: {', '.join(unfinished)}. Repeat the cram.ablate command of this table, "
            "which finishes them, or move these folders elsewhere."
        )
    runs = [run for path in paths if (run := _read_run(path)) is not None]
    if not runs:
        raise CramError(f"fit={folder}: no run has a usable model. Each {RECEIPT} says under `failed` what happened.")
    return runs


def _read_run(path: Path) -> FittedRun | None:
    """Read one finished run; None if it failed."""
    receipt, config = read_receipt(path), read_run_config(path)
    if receipt.get("failed"):
        print(f"{path}: left out, it failed: {receipt['failed']}")
        return None
    held_out = receipt["held_out"]
    return FittedRun(
        name=path.name,
        kind=RunKind(config.data.source, receipt["data"]["vocab_size"], config.objective.words, config.model.kind),
        parameters=receipt["model"]["parameters_without_embedding"],
        tokens=receipt["positions"],
        batch=receipt["positions"] / receipt["updates"],
        epochs=receipt["epochs"],
        nats=held_out["nats_per_token"],
        unigram_nats=held_out["unigram_nats_per_token"],
    )


def check_one_kind(runs: Sequence[FittedRun]) -> RunKind:
    """Check that the losses of runs are comparable, and return what the runs share.

    Raises:
        CramError: there are no runs, or they differ in text, vocabulary, objective or model kind.
    """
    kinds = {run.kind: run.name for run in runs}
    if not kinds:
        raise CramError("fit=: there is no run to fit a law to. Name the folder of a table that cram.ablate has made.")
    (first, name), *others = kinds.items()
    for other, other_name in others:
        found = [f"{field} {getattr(first, field)} and {getattr(other, field)}" for field in _differences(first, other)]
        raise CramError(
            f"fit=: the runs {name} and {other_name} differ in {', '.join(found)}, so their losses are not comparable. "
            "Move one kind of runs to another folder."
        )
    return first


def _differences(first: RunKind, other: RunKind) -> list[str]:
    names = (field.name for field in fields(RunKind))
    return [name for name in names if getattr(first, name) != getattr(other, name)]


def check_variety(runs: Sequence[FittedRun], sizes: int, token_counts: int, batches: int) -> None:
    """Check that runs are of enough different sizes, token counts and batch sizes for a law to be fitted.

    Raises:
        CramError: they are of fewer; the message names the figure.
    """
    for needed, name, words in (
        (sizes, "parameters", "model sizes"),
        (token_counts, "tokens", "token counts"),
        (batches, "batch", "batch sizes"),
    ):
        found = count_different(getattr(run, name) for run in runs)
        if found < needed:
            raise CramError(
                f"fit=: the runs are of {found} {words}, and the fit needs {needed}. Add runs to the table, or name "
                "another folder."
            )


def count_different(values: Iterable[float]) -> int:
    """Count the values that differ by more than the factor `SAME` from the next smaller one."""
    ordered = sorted(values)
    return sum(math.log(value / before) > math.log(SAME) for before, value in pairwise(ordered)) + bool(ordered)
