"""Fits to held-out losses during training: where a curve is a power law, and how updates and tokens trade."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cram.errors import CramError
from cram.planner.fit import find_doubts
from cram.planner.regression import RESAMPLES, Unknown, Values, fit_logarithm
from cram.planner.runs import Evaluation, FittedRun, check_one_kind, group_by_value

LEAST_POINTS = 5  # evaluations, of a power-law region or of a run that tells the critical batch
LEAST_BATCHES = 3
STRAIGHT = 0.004  # largest root mean square of the logarithm from a straight line within the region
EASIER = (1.0, 1.03, 1.06)  # multiples of the lowest loss that all runs reach, at which the critical batch is fitted


@dataclass(frozen=True)
class PowerRegion:
    """The part of a learning curve in which the loss is a power law of the tokens: L = (scale / D)^exponent.

    Attributes:
        exponent: of the tokens.
        scale: tokens.
        interval: of the exponent, from the 5th to the 95th percentile of the bootstrap.
        first: tokens at its beginning.
        last: tokens at its end.
        points: evaluations within it.
    """

    exponent: float
    scale: float
    interval: tuple[float, float]
    first: float
    last: float
    points: int


def find_power_region(curve: Sequence[Evaluation], resamples: int = RESAMPLES) -> PowerRegion | None:
    """Find the longest part of a curve that is straight in logarithms, and fit a power law to it.

    The length is that of the logarithm of the tokens. The warm-up, the plateau before a model learns and the fall of
    the loss with a falling learning rate bend the curve, and are left out by that.

    Source: arXiv:1906.06669, which fits power laws to learning curves. Changed: how the part is found.

    Returns:
        None where no part of `LEAST_POINTS` evaluations is straight within `STRAIGHT` and falls.
    """
    tokens, nats = (np.array([getattr(point, name) for point in curve]) for name in ("tokens", "nats"))
    log_tokens, log_nats = np.log(tokens), np.log(nats)
    best: tuple[float, int, int] | None = None
    for first in range(len(curve)):
        for end in range(first + LEAST_POINTS, len(curve) + 1):
            part = slice(first, end)
            slope, offset = np.polyfit(log_tokens[part], log_nats[part], 1)
            spread = float(np.sqrt(np.mean((log_nats[part] - offset - slope * log_tokens[part]) ** 2)))
            length = float(log_tokens[end - 1] - log_tokens[first])
            if spread <= STRAIGHT and slope < 0 and (best is None or length > best[0]):
                best = (length, first, end)
    if best is None:
        return None
    chosen = slice(*best[1:])
    return _fit_region(tokens[chosen], nats[chosen], resamples)


def _fit_region(tokens: np.ndarray, nats: np.ndarray, resamples: int) -> PowerRegion:
    middle = float(np.exp(np.mean(np.log(tokens))))
    fit = fit_logarithm(
        lambda values: values["loss"] * (middle / tokens) ** values["exponent"],
        nats,
        (Unknown("loss", float(nats.min()) / 2, float(nats.max()) * 2), Unknown("exponent", 1e-3, 3.0)),
        resamples,
    )
    exponent = fit.values["exponent"]
    scale = middle * math.pow(fit.values["loss"], 1 / exponent)
    return PowerRegion(
        exponent, scale, fit.intervals["exponent"], float(tokens[0]), float(tokens[-1]), points=len(tokens)
    )


@dataclass(frozen=True)
class BatchFit:
    """The trade of updates against tokens to reach a loss: (S / S_min - 1) (E / E_min - 1) = 1.

    Attributes:
        nats: the loss that is reached.
        constants: `least_updates` S_min, `critical_batch` B_crit in tokens, `least_tokens` E_min = B_crit S_min.
        intervals: of the constants, from the 5th to the 95th percentile of the bootstrap.
        batches: tokens of an update, of each run.
        updates: S, of each run.
        residual: standard deviation of the logarithm of the updates, observed over predicted.
        doubts: sentences on what the runs cannot tell.
    """

    nats: float
    constants: Values
    intervals: dict[str, tuple[float, float]]
    batches: tuple[float, ...]
    updates: tuple[float, ...]
    residual: float
    doubts: tuple[str, ...]


def fit_batches(runs: Sequence[FittedRun], resamples: int = RESAMPLES) -> list[BatchFit]:
    """Fit the critical batch to runs that differ in batch size, at losses that all of them reach.

    Only runs with `LEAST_POINTS` held-out losses or more count, and of these the size with the most batch sizes. The
    updates to a loss are found between two evaluations by a straight line in logarithms. The learning rate should be
    constant there: one that falls to the end of each run bends the curves.

    Source: arXiv:1812.06162 equation 2.11, arXiv:2001.08361 section 5.1.

    Raises:
        CramError: the runs are of several kinds, or fewer than three batch sizes of one model size were evaluated.
    """
    check_one_kind(runs)
    runs = _runs_of_most_batches([run for run in runs if len(run.curve) >= LEAST_POINTS])
    found = _count_batches(runs)
    if found < LEAST_BATCHES:
        raise CramError(
            f"fit=: {found} batch sizes of one model size have {LEAST_POINTS} or more evaluations, and the critical "
            f"batch needs {LEAST_BATCHES}. Use evaluation.interval= and several batch.tokens= in the table."
        )
    lowest = max(run.least_nats for run in runs)
    fits = []
    for factor in EASIER:
        reached = [(run.batch, tokens / run.batch) for run in runs if (tokens := tokens_to(run.curve, factor * lowest))]
        if len(reached) == len(runs):
            batches, updates = (np.array(values) for values in zip(*reached, strict=True))
            fits.append(_fit_hyperbola(factor * lowest, batches, updates, resamples))
    return fits


def _runs_of_most_batches(runs: Sequence[FittedRun]) -> list[FittedRun]:
    """The runs of the model size that has the most batch sizes."""
    sizes = [group for _, group in group_by_value(runs, lambda run: run.parameters)]
    return max(sizes, key=_count_batches, default=[])


def _count_batches(runs: Sequence[FittedRun]) -> int:
    return len(group_by_value(runs, lambda run: run.batch))


def tokens_to(curve: Sequence[Evaluation], nats: float) -> float | None:
    """Return the tokens after which a run first reaches a loss; None if it never does or begins below it."""
    for before, after in pairwise(curve):
        if before.nats > nats >= after.nats:
            share = math.log(before.nats / nats) / math.log(before.nats / after.nats)
            return math.exp((1 - share) * math.log(before.tokens) + share * math.log(after.tokens))
    return None


def _fit_hyperbola(nats: float, batches: np.ndarray, updates: np.ndarray, resamples: int) -> BatchFit:
    """Fit S = S_min (1 + B_crit / B), which is the same equation as that of `BatchFit`."""
    fit = fit_logarithm(
        lambda values: values["least_updates"] * (1 + values["critical_batch"] / batches),
        updates,
        (
            Unknown("least_updates", float(updates.min()) / 100, float(updates.max())),
            Unknown("critical_batch", float(batches.min()) / 100, float(batches.max()) * 100),
        ),
        resamples,
    )
    constants, intervals = fit.derive(
        lambda values: values | {"least_tokens": values["least_updates"] * values["critical_batch"]}
    )
    doubts = find_doubts(("least_updates", "critical_batch"), constants, fit)
    return BatchFit(
        nats, constants, intervals, tuple(batches.tolist()), tuple(updates.tolist()), fit.residual, tuple(doubts)
    )
