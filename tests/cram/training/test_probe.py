"""How many updates a run is predicted to have, and how often it writes a training record."""

from pathlib import Path

import pytest

from cram.training.loop import train
from cram.training.probe import choose_log_interval, predict_updates
from tests.cram.training.fake_session import SEQ_LEN, make_session


@pytest.mark.parametrize(
    ("steps", "interval"), [(1, 1), (2000, 1), (2001, 2), (4001, 5), (20_000, 10), (20_001, 20), (10**9, 500_000)]
)
def test_short_runs_write_each_update_and_long_ones_about_two_thousand_records(
    tmp_path: Path, steps: int, interval: int
) -> None:
    assert choose_log_interval(make_session(tmp_path, f"{steps}steps", rows=10**12)) == interval
    assert steps <= 2000 * interval


def test_the_predicted_updates_are_those_that_come(tmp_path: Path) -> None:
    def ramp(progress: float) -> float:
        return SEQ_LEN * (2 + 30 * min(1.0, progress / 0.5))

    session = make_session(tmp_path, f"{SEQ_LEN * 20_000}tokens", rows=20_000, batch_tokens=ramp)
    predicted = predict_updates(session)
    train(session)
    session.metrics.close()
    assert session.clock.updates == pytest.approx(predicted, rel=0.02)


def test_data_that_runs_out_ends_the_prediction(tmp_path: Path) -> None:
    for budget in ("1e9tokens", "1e9steps"):
        assert predict_updates(make_session(tmp_path, budget, rows=800)) == pytest.approx(100)
