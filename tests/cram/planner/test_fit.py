"""Fits of the scaling laws find known constants within their intervals, and say what the runs cannot tell."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cram.errors import CramError
from cram.planner import regression
from cram.planner.fit import LawFit, LeftOut, fit_compute, fit_data, fit_size, fit_size_data
from cram.planner.laws import DATA, NAIVE_COMPUTE, PF_DAY, SIZE, SIZE_DATA, PowerLaw, SizeDataLaw
from cram.planner.runs import FittedRun
from tests.cram.planner.made_runs import KIND, SIZES, TOKENS, UNIGRAM, make_run, make_runs

RESAMPLES = 15
TRUE = SizeDataLaw(2e8, 0.12, 3e7, 0.25)
JOINT = [make_runs(lambda size, tokens, _: TRUE.loss(size, tokens) / UNIGRAM, noise=noise) for noise in (0.0, 0.005)]


@pytest.fixture(autouse=True)
def _few_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "STARTS", 4)


def assert_within(fit: LawFit, name: str, true: float) -> None:
    low, high = fit.intervals[name]
    margin = (high / low) ** 0.5  # an interval of 90% may miss by a little
    assert low / margin <= true <= high * margin, (name, low, true, high)


def test_the_law_of_size_and_data_is_found_again() -> None:
    fit = fit_size_data(JOINT[1], RESAMPLES)
    for name, true in TRUE.__dict__.items():
        assert_within(fit, name, true)
    assert fit.published == SIZE_DATA.__dict__
    assert fit.residual == pytest.approx(0.005, rel=0.5)
    assert (fit.runs, fit.doubts) == (20, ())


def test_the_largest_run_is_predicted_from_the_others() -> None:
    runs = JOINT[0]
    wrong = replace(runs[-1], name="largest", nats=9.0)
    left_out = fit_size_data([*runs[:-1], wrong], 0).left_out
    assert left_out == LeftOut("largest", 9.0, pytest.approx(runs[-1].nats, rel=1e-3))


@pytest.mark.parametrize(
    ("fit", "true", "published"),
    [
        (fit_size, PowerLaw(5e9, 0.09), SIZE),
        (fit_data, PowerLaw(5e9, 0.21), DATA),
        (fit_compute, PowerLaw(4e-2, 0.11), NAIVE_COMPUTE),
    ],
)
def test_a_power_law_is_found_again(fit: Callable[..., LawFit], true: PowerLaw, published: PowerLaw) -> None:
    def relative_loss(size: float, tokens: float, _: float) -> float:
        x = {fit_size: size, fit_data: tokens, fit_compute: 6 * size * tokens / PF_DAY}[fit]
        return true.loss(x) / UNIGRAM

    runs = make_runs(relative_loss, noise=0.003)
    found = fit(runs, RESAMPLES)
    assert_within(found, "exponent", true.exponent)
    assert found.published == published.__dict__
    assert found.left_out is not None
    assert found.left_out.name == runs[-1].name
    assert found.left_out.predicted == pytest.approx(found.left_out.observed, rel=0.03)


def test_size_is_fitted_to_the_runs_of_most_tokens_and_data_to_the_largest_size() -> None:
    assert (fit_size(JOINT[0], 0).runs, fit_data(JOINT[0], 0).runs) == (len(SIZES), len(TOKENS))
    assert fit_size(JOINT[0], 0).what == "runs of 2,000,000 tokens"
    assert fit_data(JOINT[0], 0).what == "runs of 2,000,000 parameters"


def test_the_largest_size_without_enough_token_counts_is_passed_over() -> None:
    partial = [run for run in JOINT[0] if run.parameters < 2e6 or run.tokens > 1.5e6]
    assert fit_data(partial, 0).what == "runs of 600,000 parameters"
    partial = [run for run in JOINT[0] if run.tokens < 2e6 or run.parameters > 1e6]
    assert fit_size(partial, 0).what == "runs of 1,000,000 tokens"


def test_repeated_tokens_count_once() -> None:
    repeated = [replace(run, tokens=8 * run.tokens, epochs=8.0) for run in JOINT[0]]
    assert fit_size_data(repeated, 0).constants == pytest.approx(fit_size_data(JOINT[0], 0).constants, rel=1e-6)


def test_only_runs_that_lead_at_their_compute_count_for_compute() -> None:
    runs = make_runs(lambda size, tokens, _: (1e3 / (size * tokens)) ** 0.05)
    worse = [replace(run, nats=1.3 * run.nats) for run in runs]
    assert fit_compute([*runs, *worse], 0).constants == pytest.approx(fit_compute(runs, 0).constants)


def test_what_the_runs_cannot_tell_is_said() -> None:
    flat = make_runs(lambda size, tokens, _: 0.7, noise=0.02)
    assert any("cannot tell the exponent" in doubt for doubt in fit_size(flat, RESAMPLES).doubts)
    few = make_runs(lambda size, tokens, _: TRUE.loss(size, tokens) / UNIGRAM, sizes=SIZES[:3])
    assert "3 runs for 2 constants leave hardly anything to judge the fit by." in fit_size(few, 0).doubts


@pytest.mark.parametrize(
    ("fit", "runs", "message"),
    [
        (fit_size, make_runs(lambda *_: 0.8, sizes=SIZES[:2]), "of 2 model sizes, and the fit needs 3"),
        (fit_data, make_runs(lambda *_: 0.8, tokens=TOKENS[:2]), "of 2 token counts, and the fit needs 3"),
        (fit_size_data, make_runs(lambda *_: 0.8, tokens=TOKENS[:2]), "of 2 token counts, and the fit needs 3"),
        (fit_size_data, make_runs(lambda *_: 0.8, sizes=SIZES[:1]), "of 1 model sizes, and the fit needs 3"),
        (fit_compute, make_runs(lambda *_: 0.8, sizes=SIZES[:2]), "of 2 model sizes, and the fit needs 3"),
        (fit_compute, [make_run(), replace(make_run(), kind=replace(KIND, vocab_size=9))], "vocab_size 4096 and 9"),
    ],
)
def test_runs_of_too_little_variety_are_refused(
    fit: Callable[..., LawFit], runs: list[FittedRun], message: str
) -> None:
    with pytest.raises(CramError, match=message):
        fit(runs)
