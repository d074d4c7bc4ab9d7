"""The law that a plan predicts with: known constants are found again, and what the runs cannot tell is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.errors import CramError
from cram.planner.loss_law import LossLaw, fit_loss_law, read_loss_law, write_loss_law
from cram.planner.runs import FittedRun
from tests.cram.planner.made_runs import KIND, SIZES, TOKENS, UNIGRAM, make_run, make_runs

BATCHES = (512.0, 2048.0, 8192.0)
RESAMPLES = 30
TRUE = LossLaw(
    floor=0.0,
    size_scale=10.0,
    size_exponent=0.12,
    update_scale=20.0,
    update_exponent=0.6,
    critical_batch=3000.0,
    intervals={"floor": (0.0, 0.0)},
    residual=0.0,
    parameters=(SIZES[0], SIZES[-1]),
    tokens=(TOKENS[0], TOKENS[-1]),
    batch=(BATCHES[0], BATCHES[-1]),
    unigram_nats=UNIGRAM,
    runs=60,
    kind=KIND,
)
CONSTANTS = ("size_scale", "size_exponent", "update_scale", "update_exponent", "critical_batch")


def runs_of(law: LossLaw, noise: float) -> list[FittedRun]:
    return make_runs(law.predict, batches=BATCHES, noise=noise)


@pytest.fixture(scope="module")
def fitted() -> LossLaw:
    """A law fitted to runs with 1% noise."""
    return fit_loss_law(runs_of(TRUE, noise=0.01), RESAMPLES)


def test_known_constants_are_found_within_their_intervals(fitted: LossLaw) -> None:
    for name in CONSTANTS:
        low, high = fitted.intervals[name]
        margin = (high / low) ** 0.5  # 90% intervals of five constants: one may miss by a little
        assert low / margin <= getattr(TRUE, name) <= high * margin, name
    assert fitted.floor == 0.0
    assert fitted.residual == pytest.approx(0.01, rel=0.4)


def test_the_fit_predicts_runs_between_the_fitted_ones(fitted: LossLaw) -> None:
    for size, tokens, batch in ((1e5, 7e5, 1024.0), (1e6, 1.5e6, 4096.0), (4e4, 3e5, 600.0)):
        assert fitted.predict(size, tokens, batch) == pytest.approx(TRUE.predict(size, tokens, batch), rel=0.01)


def test_a_floor_is_kept_where_the_runs_tell_it() -> None:
    true = replace(TRUE, floor=0.35, size_scale=300.0, size_exponent=0.4)
    fitted = fit_loss_law(runs_of(true, noise=0.001), RESAMPLES)
    assert fitted.floor == pytest.approx(0.35, abs=0.05)
    assert fitted.intervals["floor"][0] > 0.02


def test_a_run_gone_wrong_does_not_decide(fitted: LossLaw) -> None:
    runs = runs_of(TRUE, noise=0.01)
    runs[30] = replace(runs[30], nats=1.4 * runs[30].nats)
    robust = fit_loss_law(runs, 2)
    assert robust.predict(1e5, 7e5, 1024) == pytest.approx(fitted.predict(1e5, 7e5, 1024), rel=0.005)


def test_the_ranges_are_those_of_the_runs(fitted: LossLaw) -> None:
    assert (fitted.parameters, fitted.tokens, fitted.batch) == (TRUE.parameters, TRUE.tokens, TRUE.batch)
    assert (fitted.runs, fitted.kind, fitted.unigram_nats) == (60, KIND, pytest.approx(UNIGRAM))


@given(
    parameters=st.floats(1e3, 1e9), tokens=st.floats(1, 1e10), batch=st.floats(16, 1e6), factor=st.floats(1.01, 100.0)
)
def test_more_of_anything_but_batch_lowers_the_loss(
    parameters: float, tokens: float, batch: float, factor: float
) -> None:
    loss = TRUE.predict(parameters, tokens, batch)
    assert 0 < loss <= 1
    assert TRUE.predict(parameters * factor, tokens, batch) <= loss
    assert TRUE.predict(parameters, tokens * factor, batch) <= loss
    assert TRUE.predict(parameters, tokens, batch * factor) >= loss


def test_without_tokens_the_loss_is_that_of_the_baseline() -> None:
    assert TRUE.predict(1e5, 0, 1024) == 1.0


def test_a_law_covers_what_is_near_its_runs() -> None:
    assert TRUE.covers(1e5, 1e6, 1024)
    assert TRUE.covers(SIZES[-1] * 1.4, TOKENS[-1] * 1.4, BATCHES[0] / 1.4)
    assert not TRUE.covers(SIZES[-1] * 1.6, 1e6, 1024)
    assert not TRUE.covers(1e5, TOKENS[0] / 1.6, 1024)
    assert not TRUE.covers(1e5, 1e6, BATCHES[-1] * 1.6)


def test_a_written_law_is_read_again(tmp_path: Path) -> None:
    write_loss_law(tmp_path / "law.json", TRUE)
    assert read_loss_law(tmp_path / "law.json") == TRUE


@pytest.mark.parametrize(
    "change", [{"floor": "none"}, {"tokens": [1]}, {"kind": {"text": "x"}}, {"extra": 1.0}, {"intervals": 3}]
)
def test_a_damaged_law_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "law.json"
    write_loss_law(path, TRUE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CramError, match="not a law that"):
        read_loss_law(path)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "there is no run"),
        (make_runs(TRUE.predict, sizes=SIZES[:2], batches=BATCHES), "of 2 model sizes, and the fit needs 3"),
        (make_runs(TRUE.predict, tokens=TOKENS[:1], batches=BATCHES), "of 1 token counts, and the fit needs 2"),
        (make_runs(TRUE.predict), "of 1 batch sizes, and the fit needs 2"),
        (
            [*make_runs(TRUE.predict, batches=BATCHES), replace(make_run(), kind=replace(KIND, model="lstm"))],
            "model decoder and lstm",
        ),
        ([make_run(parameters=10.0**n, tokens=10.0**n, batch=10.0**n) for n in range(1, 7)], "6 runs.*needs 8"),
    ],
)
def test_runs_that_cannot_be_fitted_are_refused(runs: list[FittedRun], message: str) -> None:
    with pytest.raises(CramError, match=message):
        fit_loss_law(runs)
