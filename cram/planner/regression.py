"""Fits of positive quantities by a robust loss in the logarithm, with bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Values = dict[str, float]
Predict = Callable[[Values], np.ndarray]

TYPICAL = 0.02  # residual of the logarithm from which the Huber loss grows linearly
DRAWS = 400  # random points of the ranges
STARTS = 12  # the best of these, from which the fit starts; the best end is kept
RESAMPLES = 200
INTERVAL = (5.0, 95.0)  # percentiles
AT_BOUND = 1e-3  # share of its range within which an unknown counts as being at its bound


@dataclass(frozen=True)
class Unknown:
    """A constant that a fit looks for.

    Attributes:
        name: key of its value.
        low: least value.
        high: largest value.
        linear: search the value itself and not its logarithm; needed for a range that begins at 0.
    """

    name: str
    low: float
    high: float
    linear: bool = False


@dataclass(frozen=True)
class Regression:
    """The outcome of a fit.

    Attributes:
        values: of the unknowns.
        intervals: of the unknowns, between the percentiles `INTERVAL` of the bootstrap.
        samples: the unknowns of each bootstrap sample.
        residual: standard deviation of the logarithm of observed over predicted, with one degree of freedom less for
            each unknown.
        at_bound: names of the unknowns that ended at a bound of their range, so that the data cannot tell them.
    """

    values: Values
    intervals: dict[str, tuple[float, float]]
    samples: tuple[Values, ...]
    residual: float
    at_bound: tuple[str, ...]

    def derive(self, convert: Callable[[Values], Values]) -> tuple[Values, dict[str, tuple[float, float]]]:
        """Return quantities that `convert` computes from the unknowns, and their intervals."""
        return convert(self.values), _intervals([convert(sample) for sample in self.samples])


def fit_logarithm(
    predict: Predict, observed: np.ndarray, unknowns: tuple[Unknown, ...], resamples: int = RESAMPLES
) -> Regression:
    """Fit unknowns so that the logarithms of predicted and observed values agree.

    The loss is Huber's, which is quadratic up to `TYPICAL` and linear beyond, so that a run gone wrong does not decide.
    The bootstrap resamples the residuals of all points together and not the points, because the points are a designed
    grid: without all points of one size there is nothing to fit. The residuals are widened for the degrees of freedom
    that the fit used up.

    Source: arXiv:2203.15556 section 3.3 (Huber loss of the logarithm, several starts), changed: trust-region least
    squares in place of L-BFGS, and a wider quadratic region because small runs vary more.

    Args:
        predict: values at all points, all positive, for given unknowns.
        observed: values at the points, all positive.
        unknowns: with their ranges.
        resamples: number of bootstrap samples; 0 for no intervals.
    """
    target, generator = np.log(observed), np.random.default_rng(0)
    starts = _choose_starts(predict, target, unknowns, generator)
    best = min((_minimise(predict, target, unknowns, start) for start in starts), key=lambda end: end[1])[0]
    values = _to_values(unknowns, best)
    fitted = np.log(predict(values))
    widened = (target - fitted) * np.sqrt(len(target) / max(1, len(target) - len(unknowns)))
    samples = []
    for _ in range(resamples):
        resampled = fitted + generator.choice(widened, len(target))
        samples.append(_to_values(unknowns, _minimise(predict, resampled, unknowns, best)[0]))
    return Regression(
        values=values,
        intervals=_intervals(samples),
        samples=tuple(samples),
        residual=float(np.sqrt(np.mean(widened**2))),
        at_bound=tuple(u.name for u, place in zip(unknowns, best, strict=True) if not AT_BOUND < place < 1 - AT_BOUND),
    )


def _choose_starts(
    predict: Predict, target: np.ndarray, unknowns: tuple[Unknown, ...], generator: np.random.Generator
) -> list[np.ndarray]:
    """Draw places at random and keep those with the least mean error: far from the data a fit finds no slope."""
    draws = list(generator.random((DRAWS, len(unknowns))))
    draws.sort(key=lambda place: float(np.abs(np.log(predict(_to_values(unknowns, place))) - target).mean()))
    return draws[:STARTS]


def _minimise(
    predict: Predict, target: np.ndarray, unknowns: tuple[Unknown, ...], start: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the place of a local minimum, each unknown between 0 and 1 within its range, and the loss there."""
    from scipy.optimize import least_squares

    end = least_squares(
        lambda place: np.log(predict(_to_values(unknowns, place))) - target,
        np.clip(start, 1e-6, 1 - 1e-6),
        bounds=(0.0, 1.0),
        method="dogbox",
        loss="huber",
        f_scale=TYPICAL,
        max_nfev=200,
    )
    return end.x, float(end.cost)


def _to_values(unknowns: tuple[Unknown, ...], place: np.ndarray) -> Values:
    return {unknown.name: _to_value(unknown, float(share)) for unknown, share in zip(unknowns, place, strict=True)}


def _to_value(unknown: Unknown, share: float) -> float:
    if unknown.linear:
        return unknown.low + share * (unknown.high - unknown.low)
    return float(unknown.low * (unknown.high / unknown.low) ** share)


def _intervals(samples: list[Values]) -> dict[str, tuple[float, float]]:
    """The interval of each value over the samples; nothing without samples."""
    intervals = {}
    for name in samples[0] if samples else ():
        low, high = np.percentile([sample[name] for sample in samples], INTERVAL)
        intervals[name] = (float(low), float(high))
    return intervals
