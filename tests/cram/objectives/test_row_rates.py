"""Mask rates that vary from row to row: their mean, their spread, and what they depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cram.config.objective import ObjectiveConfig
from cram.data.shards.loader import TrainingRows
from cram.objectives.batch import IGNORED
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting
from cram.objectives.row_rates import RowRates
from cram.objectives.slots import row_keys

ROWS, SEQ_LEN = 5000, 64


def keys(seed: int) -> np.ndarray:
    return row_keys(seed, np.zeros(ROWS, np.int32), np.arange(ROWS))


def make_rows(rows: int) -> TrainingRows:
    tokens = np.random.default_rng(0).integers(5, 64, (rows, SEQ_LEN)).astype(np.int32)
    return TrainingRows(tokens, np.zeros_like(tokens), np.arange(rows), np.zeros(rows, np.int32))


def make_objective(spread: float, static: bool = False, **config: float) -> MaskedObjective:
    setting = Setting([0, 1, 2, 3, 4], 0, 4, 64, SEQ_LEN, 0, static)
    return MaskedObjective(ObjectiveConfig(mask_rate_spread=spread, **config), setting)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), mean=st.floats(0.05, 0.95), spread=st.floats(0.01, 0.5))
def test_rates_follow_the_beta_distribution_of_the_schedules_rate(seed: int, mean: float, spread: float) -> None:
    rates = RowRates(spread).draw(mean, keys(seed))
    concentration = 1 / spread**2 - 1
    expected = stats.beta(mean * concentration, (1 - mean) * concentration)
    assert expected.std() == pytest.approx(spread * np.sqrt(mean * (1 - mean)))
    assert abs(rates.mean() - mean) < 5 * expected.std() / np.sqrt(ROWS) + 1e-3 * mean
    assert rates.std() == pytest.approx(expected.std(), rel=0.1)
    assert stats.kstest(rates, expected.cdf).statistic < 0.03
    assert rates.max() <= RowRates(spread).most(mean) + 1e-12


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_schedules_rate_holds_on_average_and_rows_differ(progress: float) -> None:
    objective, rows = make_objective(0.25), make_rows(4000)
    batch = objective.prepare(rows, progress)
    assert batch.predicted / rows.tokens.size == pytest.approx(objective.rate(progress), rel=0.02)
    spread = objective.predicted_per_row(batch).std() / SEQ_LEN
    rate = objective.rate(progress)
    assert spread == pytest.approx(0.25 * np.sqrt(rate * (1 - rate)), rel=0.1)


def test_the_rate_of_a_row_is_a_function_of_seed_epoch_and_row_alone() -> None:
    objective, rows = make_objective(0.3), make_rows(16)
    together = objective.predicted_per_row(objective.prepare(rows, 0.3))
    alone = [objective.prepare(rows[row : row + 1], 0.3).predicted for row in range(16)]
    assert together.tolist() == alone
    rows.epoch += 1
    assert objective.predicted_per_row(objective.prepare(rows, 0.3)).tolist() != alone


def test_static_shapes_have_room_for_the_largest_rate() -> None:
    objective = make_objective(0.25, static=True, mask_rate=0.3, final_mask_rate=0.1)
    rows = make_rows(2000)
    for progress in (0.0, 1.0):
        batch = objective.prepare(rows, progress)
        assert len(batch.labels) == len(rows.tokens) * objective.capacity
        assert 0.3 * SEQ_LEN < objective.capacity < SEQ_LEN
        assert int((batch.labels != IGNORED).sum()) == batch.predicted


def test_without_a_spread_every_row_has_the_schedules_rate() -> None:
    assert set(RowRates(0.0).draw(0.3, keys(0))) == {0.3}
    assert set(RowRates(0.4).draw(1.0, keys(0))) == {1.0}
    assert RowRates(0.0).most(0.3) == 0.3
