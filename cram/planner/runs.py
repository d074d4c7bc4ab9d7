"""The runs that laws are fitted to, read from the receipts of a folder."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path

from cram.errors import CramError
from cram.files.sealed import CHECKSUMS
from cram.planner.laws import training_flops
from cram.run.checksums import RECEIPT, RECIPE, is_finished, read_receipt, read_run_config
from cram.run.metrics import read_metrics

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
class Evaluation:
    """The held-out loss of a run at one moment.

    Attributes:
        tokens: that it had been trained on.
        nats: per predicted token.
    """

    tokens: float
    nats: float


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
        nats: held-out loss at the end, nats per predicted token.
        unigram_nats: the same of the unigram baseline.
        curve: the held-out losses of the run in order, the last one included.
        path: its folder.
    """

    name: str
    kind: RunKind
    parameters: float
    tokens: float
    batch: float
    epochs: float
    nats: float
    unigram_nats: float
    curve: tuple[Evaluation, ...] = ()
    path: Path = field(default=Path(), compare=False)

    @property
    def relative_loss(self) -> float:
        """Held-out loss as a share of the unigram baseline's."""
        return self.nats / self.unigram_nats

    @property
    def updates(self) -> float:
        """Number of updates."""
        return self.tokens / self.batch

    @property
    def data_tokens(self) -> float:
        """Tokens of the data that it saw, each counted once."""
        return self.tokens / max(1.0, self.epochs)

    @property
    def repeats(self) -> bool:
        """Whether it saw a notable part of its data more than once."""
        return self.epochs > SAME

    @property
    def least_nats(self) -> float:
        """The least held-out loss of the run, which early stopping would keep."""
        return min([self.nats, *(evaluation.nats for evaluation in self.curve)])

    @property
    def compute(self) -> float:
        """Floating-point operations of the training, C = 6 N D."""
        return training_flops(self.parameters, self.tokens)


def read_runs(folder: Path) -> list[FittedRun]:
    """Read the finished runs in a folder that `cram.ablate` has made, or in a folder of such folders.

    Runs that failed are left out, with a printed line.

    Returns:
        The runs, by the names of their folders.

    Raises:
        CramError: the folder holds no run, a run is not finished, or none has a usable model.
    """
    recipes = [*folder.glob(f"*/{RECIPE}"), *folder.glob(f"*/*/{RECIPE}")]
    paths = sorted(path.parent for path in recipes if (path.parent / CHECKSUMS).exists())
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
        curve=_read_curve(path / "metrics.jsonl", receipt["positions"] / receipt["updates"]),
        path=path,
    )


def _read_curve(path: Path, batch: float) -> tuple[Evaluation, ...]:
    """Read the held-out losses of a run that are finite; none where its metrics are gone."""
    if not path.exists():
        return ()
    return tuple(
        Evaluation(record["step"] * batch, record["nats_per_token"])
        for record in read_metrics(path)
        if record["kind"] == "held_out" and record.get("step") and record.get("nats_per_token")
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
        found = len(group_by_value(runs, attrgetter(name)))
        if found < needed:
            raise CramError(
                f"fit=: the runs are of {found} {words}, and the fit needs {needed}. Add runs to the table, or name "
                "another folder."
            )


def group_by_value(
    runs: Iterable[FittedRun], value: Callable[[FittedRun], float]
) -> list[tuple[float, list[FittedRun]]]:
    """Group runs whose value differs by a factor of at most `SAME` from the next smaller one.

    Returns:
        The groups with their least values, by value.
    """
    groups: list[tuple[float, list[FittedRun]]] = []
    for run in sorted(runs, key=value):
        if groups and value(run) <= SAME * value(groups[-1][1][-1]):
            groups[-1][1].append(run)
        else:
            groups.append((value(run), [run]))
    return groups


def runs_of_usual_batch(runs: Sequence[FittedRun]) -> list[FittedRun]:
    """Return the runs of the batch size that most of them have."""
    groups = group_by_value(runs, lambda run: run.batch)
    return max((group for _, group in groups), key=len)
