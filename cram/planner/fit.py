"""Fits of the scaling laws to finished runs, each beside the published constants of the same law."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cram.planner.laws import DATA, NAIVE_COMPUTE, PF_DAY, SIZE, SIZE_DATA, PowerLaw, SizeDataLaw
from cram.planner.regression import RESAMPLES, Regression, Unknown, Values, fit_logarithm
from cram.planner.runs import SAME, FittedRun, check_one_kind, check_variety, group_by_value

WIDEST = 3.0  # ratio of the ends of an interval above which an exponent counts as unknown
LEAST_VALUES = 3  # sizes or token counts of a fit
EXPONENTS = (0.01, 2.0)
LOSSES = (0.01, 20.0)  # nats, of the terms at the middle of the runs


@dataclass(frozen=True)
class LeftOut:
    """The largest run, predicted by a fit of the others.

    Attributes:
        name: of the run.
        observed: nats per token.
        predicted: nats per token.
    """

    name: str
    observed: float
    predicted: float


@dataclass(frozen=True)
class LawFit:
    """The fit of one law.

    Attributes:
        law: such as `L(N)`.
        what: which runs it was fitted to.
        constants: of the law, by the names of `cram.planner.laws`.
        intervals: of the constants, from the 5th to the 95th percentile of the bootstrap.
        published: the constants of Kaplan et al., by the same names.
        residual: standard deviation of the logarithm of the loss, observed over predicted.
        runs: number of runs.
        left_out: the prediction of the largest run; None where the others are too few.
        doubts: sentences on what the runs cannot tell.
    """

    law: str
    what: str
    constants: Values
    intervals: dict[str, tuple[float, float]]
    published: Values
    residual: float
    runs: int
    left_out: LeftOut | None
    doubts: tuple[str, ...]


def fit_size(runs: Sequence[FittedRun], resamples: int = RESAMPLES) -> LawFit:
    """Fit L(N) = (Nc / N)^aN to the runs with the most tokens, or the most that three sizes have.

    Kaplan et al. train to convergence. Runs of a fixed number of tokens end above that, the larger ones further, so
    that the exponent comes out smaller.

    Raises:
        CramError: the runs are of several kinds, or no three sizes have the same number of tokens.
    """
    most, chosen = _largest_group(runs, lambda run: run.data_tokens, lambda run: run.parameters)
    check_one_kind(chosen)
    check_variety(chosen, sizes=LEAST_VALUES, token_counts=1, batches=1)
    return _fit_power("L(N)", f"runs of {most:,.0f} tokens", chosen, lambda run: run.parameters, SIZE, resamples)


def fit_data(runs: Sequence[FittedRun], resamples: int = RESAMPLES) -> LawFit:
    """Fit L(D) = (Dc / D)^aD to the runs of the largest size, or the largest with three token counts.

    D counts each token once, and the least held-out loss of a run counts, as with early stopping.

    Raises:
        CramError: the runs are of several kinds, or no size has three token counts.
    """
    most, chosen = _largest_group(runs, lambda run: run.parameters, lambda run: run.data_tokens)
    check_one_kind(chosen)
    check_variety(chosen, sizes=1, token_counts=LEAST_VALUES, batches=1)
    return _fit_power("L(D)", f"runs of {most:,.0f} parameters", chosen, lambda run: run.data_tokens, DATA, resamples)


def _largest_group(
    runs: Sequence[FittedRun], held: Callable[[FittedRun], float], varied: Callable[[FittedRun], float]
) -> tuple[float, list[FittedRun]]:
    """The runs of the largest value of one figure that have three values of the other; if none do, of the largest."""
    groups = group_by_value(runs, held)
    suiting = [group for group in groups if len(group_by_value(group[1], varied)) >= LEAST_VALUES]
    return (suiting or groups)[-1]


def fit_compute(runs: Sequence[FittedRun], resamples: int = RESAMPLES) -> LawFit:
    """Fit L(C) = (Cc / C)^aC, C in PF-days, to the runs that no run of as little compute surpasses.

    Raises:
        CramError: the runs are of several kinds, or of fewer than three sizes.
    """
    check_one_kind(runs)
    check_variety(runs, sizes=LEAST_VALUES, token_counts=1, batches=1)
    chosen = find_envelope(runs)
    what = "runs that none of less compute surpasses"
    return _fit_power("L(C)", what, chosen, lambda run: run.compute / PF_DAY, NAIVE_COMPUTE, resamples)


def find_envelope(runs: Sequence[FittedRun]) -> list[FittedRun]:
    """Return the runs with a lower loss than all runs of less compute, by compute."""
    envelope: list[FittedRun] = []
    for run in sorted(runs, key=lambda run: (run.compute, run.least_nats)):
        if not envelope or run.least_nats < envelope[-1].least_nats:
            envelope.append(run)
    return envelope


def _fit_power(
    law: str,
    what: str,
    runs: Sequence[FittedRun],
    measure: Callable[[FittedRun], float],
    published: PowerLaw,
    resamples: int,
) -> LawFit:
    """Fit (scale / x)^exponent, where `measure` gives the x of a run."""
    x, nats = np.array([measure(run) for run in runs]), np.array([run.least_nats for run in runs])
    middle = _middle(x)

    def convert(values: Values) -> Values:
        exponent = values["exponent"]
        return {"scale": middle * math.pow(values["loss"], 1 / exponent), "exponent": exponent}

    def fit(chosen: np.ndarray, resamples: int) -> Regression:
        unknowns = (Unknown("loss", *LOSSES), Unknown("exponent", *EXPONENTS))
        return fit_logarithm(
            lambda values: values["loss"] * (middle / x[chosen]) ** values["exponent"],
            nats[chosen],
            unknowns,
            resamples,
        )

    largest = int(np.argmax(x))
    others = x < x[largest] / SAME
    left_out = None
    if len(np.unique(x[others])) >= 2:
        constants = convert(fit(others, 0).values)
        predicted = PowerLaw(**constants).loss(float(x[largest]))
        left_out = LeftOut(runs[largest].name, float(nats[largest]), predicted)
    regression = fit(np.ones(len(x), dtype=bool), resamples)
    return _describe(law, what, regression, convert, published.__dict__, left_out, len(runs))


def fit_size_data(runs: Sequence[FittedRun], resamples: int = RESAMPLES) -> LawFit:
    """Fit L(N, D) = ((Nc / N)^(aN / aD) + Dc / D)^aD to all runs.

    D counts each token once, and the least held-out loss of a run counts, as with early stopping.

    Raises:
        CramError: the runs are of several kinds, or of fewer than three sizes or token counts.
    """
    check_one_kind(runs)
    check_variety(runs, sizes=LEAST_VALUES, token_counts=LEAST_VALUES, batches=1)
    size, tokens = np.array([run.parameters for run in runs]), np.array([run.data_tokens for run in runs])
    nats = np.array([run.least_nats for run in runs])
    middle_size, middle_tokens = _middle(size), _middle(tokens)

    def convert(values: Values) -> Values:
        return {
            "size_scale": middle_size * math.pow(values["size_loss"], 1 / values["size_exponent"]),
            "size_exponent": values["size_exponent"],
            "data_scale": middle_tokens * math.pow(values["data_loss"], 1 / values["data_exponent"]),
            "data_exponent": values["data_exponent"],
        }

    def fit(chosen: np.ndarray, resamples: int) -> Regression:
        def predict(values: Values) -> np.ndarray:
            from_size = math.log(values["size_loss"]) + values["size_exponent"] * np.log(middle_size / size[chosen])
            from_data = math.log(values["data_loss"]) / values["data_exponent"] + np.log(middle_tokens / tokens[chosen])
            total = np.logaddexp(from_size / values["data_exponent"], from_data)
            predicted: np.ndarray = np.exp(values["data_exponent"] * total)
            return predicted

        losses = (Unknown("size_loss", *LOSSES), Unknown("data_loss", *LOSSES))
        exponents = (Unknown("size_exponent", *EXPONENTS), Unknown("data_exponent", *EXPONENTS))
        return fit_logarithm(predict, nats[chosen], (*losses, *exponents), resamples)

    largest = int(np.argmax([run.compute for run in runs]))
    others = np.arange(len(runs)) != largest
    predicted = SizeDataLaw(**convert(fit(others, 0).values)).loss(float(size[largest]), float(tokens[largest]))
    left_out = LeftOut(runs[largest].name, float(nats[largest]), predicted)
    regression = fit(np.ones(len(runs), dtype=bool), resamples)
    return _describe("L(N, D)", "runs of all sizes", regression, convert, SIZE_DATA.__dict__, left_out, len(runs))


def _middle(values: np.ndarray) -> float:
    """The geometric mean, at which a fit looks for the terms, since scales far outside the data are ill-conditioned."""
    return float(np.exp(np.mean(np.log(values))))


def _describe(
    law: str,
    what: str,
    regression: Regression,
    convert: Callable[[Values], Values],
    published: Values,
    left_out: LeftOut | None,
    runs: int,
) -> LawFit:
    constants, intervals = regression.derive(convert)
    doubts = find_doubts([name for name in constants if name.endswith("exponent")], constants, regression)
    if runs <= len(constants) + 1:
        doubts.append(f"{runs} runs for {len(constants)} constants leave hardly anything to judge the fit by.")
    return LawFit(law, what, constants, intervals, dict(published), regression.residual, runs, left_out, tuple(doubts))


def find_doubt(name: str, value: float, interval: tuple[float, float] | None, at_bound: bool = False) -> str | None:
    """State in a sentence that the runs cannot tell a constant; None if they can.

    Args:
        name: of the constant.
        interval: of the constant; None where there is no bootstrap.
        at_bound: whether the fit ended at a bound of the range of the constant.
    """
    words = name.replace("_", " ")
    if at_bound:
        return f"The runs cannot tell the {words}: it is at the bound {value:.3g} of its range."
    if interval is not None and interval[1] > WIDEST * interval[0]:
        return f"The runs cannot tell the {words}: its interval is {interval[0]:.3g} to {interval[1]:.3g}."
    return None


def find_doubts(names: Iterable[str], constants: Values, regression: Regression) -> list[str]:
    """State in sentences which unknowns of a regression the runs cannot tell.

    Args:
        names: of the unknowns.
        constants: with the values of the unknowns.
    """
    found = (
        find_doubt(name, constants[name], regression.intervals.get(name), name in regression.at_bound) for name in names
    )
    return [doubt for doubt in found if doubt is not None]
