"""Learning curves: their power-law part, and the critical batch from the updates to a loss."""

import math
from dataclasses import replace

import pytest

from cram.errors import CramError
from cram.planner.curve_fit import EASIER, find_power_region, fit_batches, tokens_to
from cram.planner.laws import updates_for_batch
from cram.planner.runs import Evaluation, FittedRun
from tests.cram.planner.made_runs import make_run

STEPS = range(1, 25)
CRITICAL, LEAST = 3000.0, 150.0


def make_curve(exponent: float = 0.3) -> tuple[Evaluation, ...]:
    """A plateau, a power law from 100,000 to 1,000,000 tokens, and a fast fall at the end."""
    tokens = [20_000 * 1.25**step for step in STEPS]
    loss = [4.0 * (1e5 / min(max(count, 1e5), 1e6)) ** exponent for count in tokens]
    return tuple(
        Evaluation(count, nats if count <= 1e6 else nats * (1e6 / count) ** 1.5)
        for count, nats in zip(tokens, loss, strict=True)
    )


def test_the_power_law_part_of_a_curve_is_found() -> None:
    region = find_power_region(make_curve(), resamples=10)
    assert region is not None
    assert region.exponent == pytest.approx(0.3, abs=0.01)
    assert region.interval[0] <= region.exponent <= region.interval[1]
    assert 8e4 < region.first < 1.3e5
    assert 8e5 < region.last < 1.3e6
    assert (region.scale / 3e5) ** region.exponent == pytest.approx(4.0 * (1e5 / 3e5) ** 0.3, rel=0.01)


def test_a_curve_that_does_not_fall_has_no_power_law_part() -> None:
    flat = tuple(Evaluation(1000.0 * step, 6.0 + 0.001 * step) for step in STEPS)
    assert find_power_region(flat) is None
    assert find_power_region(make_curve()[:4]) is None
    assert find_power_region(()) is None


def batch_run(batch: float, parameters: float = 1e5, critical: float = CRITICAL) -> FittedRun:
    """A run whose loss falls with S_min, the updates that large batches would need."""
    updates = [updates_for_batch(LEAST * 1.1**step, batch, critical) for step in STEPS]
    curve = tuple(
        Evaluation(count * batch, 6.0 * 1.1 ** (-0.3 * step)) for step, count in zip(STEPS, updates, strict=True)
    )
    return replace(make_run(batch=batch, parameters=parameters, nats=curve[-1].nats), curve=curve)


def test_the_critical_batch_is_found_again_at_each_loss() -> None:
    fits = fit_batches([batch_run(batch) for batch in (500, 1000, 2000, 4000, 8000)], resamples=10)
    assert len(fits) == len(EASIER)
    for fit in fits:
        step = math.log(6.0 / fit.nats) / math.log(1.1) / 0.3
        assert fit.constants["critical_batch"] == pytest.approx(CRITICAL, rel=0.01)
        assert fit.constants["least_updates"] == pytest.approx(LEAST * 1.1**step, rel=0.01)
        assert fit.constants["least_tokens"] == pytest.approx(CRITICAL * LEAST * 1.1**step, rel=0.01)
        assert fit.doubts == ()
        excess = [
            (updates / fit.constants["least_updates"] - 1) * (updates * batch / fit.constants["least_tokens"] - 1)
            for updates, batch in zip(fit.updates, fit.batches, strict=True)
        ]
        assert excess == pytest.approx([1.0] * 5, rel=0.1)


def test_batches_far_below_the_critical_one_leave_it_open() -> None:
    fit = fit_batches([batch_run(batch, critical=1e9) for batch in (500, 1000, 2000)], resamples=10)[0]
    assert any("cannot tell the critical batch" in doubt for doubt in fit.doubts)


def test_the_size_with_the_most_batches_counts() -> None:
    others = [batch_run(1000, parameters=2e5, critical=9e9), batch_run(2000, parameters=2e5, critical=9e9)]
    fit = fit_batches([*others, *(batch_run(batch) for batch in (500, 2000, 8000))], resamples=5)[0]
    assert sorted(fit.batches) == [500, 2000, 8000]


@pytest.mark.parametrize(
    "runs",
    [
        [batch_run(500), batch_run(1000)],
        [batch_run(500), batch_run(1000), batch_run(2000, parameters=9e5)],
        [replace(batch_run(batch), curve=batch_run(batch).curve[:4]) for batch in (500, 1000, 2000)],
    ],
)
def test_too_few_batch_sizes_are_refused(runs: list[FittedRun]) -> None:
    with pytest.raises(CramError, match=r"critical batch needs 3\. Use evaluation\.interval= and several"):
        fit_batches(runs)


def test_the_tokens_to_a_loss_are_between_two_evaluations() -> None:
    curve = (Evaluation(100.0, 4.0), Evaluation(400.0, 1.0))
    assert tokens_to(curve, 2.0) == pytest.approx(200.0)
    assert tokens_to(curve, 0.5) is None
    assert tokens_to(curve, 5.0) is None
