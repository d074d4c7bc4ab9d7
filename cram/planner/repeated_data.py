"""Runs that repeat their data beside runs that do not, in the terms of One Epoch: speed-ups, and the best size.

Source: arXiv:1906.06669 section 3, changed: the arms are told apart by what the runs did, not by their names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cram.planner.curve_fit import LEAST_POINTS, tokens_to
from cram.planner.runs import Evaluation, FittedRun
from cram.planner.size_rules import one_epoch_speedup
from cram.run.checksums import read_receipt, read_run_config


@dataclass(frozen=True)
class EpochRun:
    """A run with what decides its arm.

    Attributes:
        run: its figures.
        all_parameters: number with the embedding, the P of One Epoch.
        dropout: value of `model.dropout`.
        seed: value of `seed`.
    """

    run: FittedRun
    all_parameters: int
    dropout: float
    seed: int

    @property
    def arm(self) -> str:
        """The arm in the words of One Epoch: S or M with the number of epochs, then D for dropout."""
        epochs = f"M{self.run.epochs:.0f}" if self.run.repeats else "S"
        return epochs + ("D" if self.dropout else "")


@dataclass(frozen=True)
class Speedup:
    """How much faster one epoch is than several, at one size.

    Attributes:
        all_parameters: number with the embedding.
        epochs: of the run that repeats its data.
        dropout: whether the better of its two arms, with and without dropout, is the one with dropout.
        nats: its least held-out loss.
        tokens_to_best: after which it has that loss.
        tokens_of_single: after which the run of one epoch reaches that loss; None where it never does.
        factor: E; None where the run of one epoch never reaches that loss.
        interval: of E, from the evaluations on both sides of the loss.
    """

    all_parameters: int
    epochs: float
    dropout: bool
    nats: float
    tokens_to_best: float
    tokens_of_single: float | None
    factor: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Window:
    """The tokens for which a size has the lowest loss of all sizes, one epoch each.

    Attributes:
        all_parameters: number with the embedding.
        first: tokens at the first evaluation where it is the best.
        last: tokens at the last one.
    """

    all_parameters: int
    first: float
    last: float


def select_epoch_runs(runs: Sequence[FittedRun]) -> list[EpochRun]:
    """Select the runs of the kind that repeats its data, if they were evaluated often enough during training.

    Returns:
        Nothing where no run repeats its data.
    """
    often = [run for run in runs if len(run.curve) >= LEAST_POINTS]
    kinds = {run.kind for run in often if run.repeats}
    return [_describe(run) for run in often if run.kind in kinds]


def _describe(run: FittedRun) -> EpochRun:
    config = read_run_config(run.path)
    return EpochRun(run, read_receipt(run.path)["model"]["parameters"], config.model.dropout, config.seed)


def find_speedups(runs: Sequence[EpochRun]) -> list[Speedup]:
    """Compare the runs that repeat their data with the run of one epoch without dropout, at each size and seed.

    E = updates to the best loss of the run over several epochs / updates that the run of one epoch needs for it. Of the
    arms with and without dropout, the one with the lower loss counts.
    """
    singles = {(run.all_parameters, run.seed): run.run for run in runs if run.arm == "S"}
    repeated: dict[tuple[int, int, int], list[EpochRun]] = {}
    for run in runs:
        if run.run.repeats and (run.all_parameters, run.seed) in singles:
            key = (run.all_parameters, round(run.run.epochs), run.seed)
            repeated.setdefault(key, []).append(run)
    return [
        _compare(min(arms, key=lambda run: run.run.least_nats), singles[size, seed])
        for (size, _, seed), arms in sorted(repeated.items())
    ]


def _compare(several: EpochRun, single: FittedRun) -> Speedup:
    best = min(several.run.curve, key=lambda point: point.nats)
    tokens = tokens_to(single.curve, best.nats)
    factor = one_epoch_speedup(best.tokens, tokens) if tokens else None
    return Speedup(
        all_parameters=several.all_parameters,
        epochs=several.run.epochs,
        dropout=several.dropout > 0,
        nats=best.nats,
        tokens_to_best=best.tokens,
        tokens_of_single=tokens,
        factor=factor,
        interval=_around(single.curve, best, tokens) if tokens else None,
    )


def _around(curve: Sequence[Evaluation], best: Evaluation, tokens: float) -> tuple[float, float]:
    """The speed-ups by the evaluations after and before a number of tokens."""
    after = min(point.tokens for point in curve if point.tokens >= tokens)
    before = max(point.tokens for point in curve if point.tokens <= tokens)
    return one_epoch_speedup(best.tokens, after), one_epoch_speedup(best.tokens, before)


def find_windows(runs: Sequence[EpochRun]) -> list[Window]:
    """Find for which tokens each size is the best one, among the runs of one epoch without dropout.

    Sizes that are never the best are left out. Curves are compared at the evaluations of the shortest one, between two
    evaluations by a straight line in the logarithm of the tokens.
    """
    singles = [run for run in runs if run.arm == "S"]
    if not singles:
        return []
    shared = min((run.run.curve for run in singles), key=lambda curve: curve[-1].tokens)
    windows: dict[int, list[float]] = {}
    for point in shared:
        losses = {run.all_parameters: _nats_at(run.run.curve, point.tokens) for run in singles}
        windows.setdefault(min(losses, key=losses.__getitem__), []).append(point.tokens)
    return [Window(size, tokens[0], tokens[-1]) for size, tokens in sorted(windows.items())]


def _nats_at(curve: Sequence[Evaluation], tokens: float) -> float:
    """The loss at some tokens; that of the nearest end outside of the curve."""
    before = [point for point in curve if point.tokens <= tokens]
    after = [point for point in curve if point.tokens >= tokens]
    if not before or not after:
        return (before[-1:] or after[:1])[0].nats
    low, high = before[-1], after[0]
    if low.tokens == high.tokens:
        return low.nats
    share = math.log(tokens / low.tokens) / math.log(high.tokens / low.tokens)
    return low.nats + share * (high.nats - low.nats)
