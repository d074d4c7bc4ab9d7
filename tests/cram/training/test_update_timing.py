"""An update is timed whole, after one that is not timed, and only as often as the seconds allow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cram.errors import CramError
from cram.training.update_timing import TrialSession, time_update
from tests.cram.training.fake_session import FakeObjective, FakeRows, make_session

ROWS = FakeRows(np.arange(6, dtype=np.float32))


def readings(*durations: float) -> Iterator[float]:
    """What a clock shows before and after each timed update, which takes one of the durations."""
    now = 100.0
    for duration in durations:
        yield now
        now += duration
        yield now


def make_trial(folder: Path, **changes: Any) -> TrialSession:
    session = make_session(folder, **changes)
    return TrialSession(session.parts, session.config, session.state)


@pytest.mark.parametrize(
    ("durations", "seconds", "median"),
    [((0.5,), 0.0, 0.5), ((0.5,), 0.4, 0.5), ((0.5, 0.3, 0.1), 0.85, 0.3), ((0.5, 0.1), 0.55, 0.1)],
)
def test_updates_are_timed_until_the_seconds_are_spent(
    tmp_path: Path, durations: tuple[float, ...], seconds: float, median: float
) -> None:
    trial = make_trial(tmp_path)
    clock = readings(*durations)
    assert time_update(trial, ROWS, 0.5, seconds, lambda: next(clock)) == pytest.approx(median)
    optimizer: Any = trial.parts.optimizer
    assert len(optimizer.multipliers) == 1 + len(durations)
    assert next(clock, None) is None


def test_an_update_has_all_its_rows_and_the_warm_up_one_micro_batch(tmp_path: Path) -> None:
    objective = FakeObjective()
    trial = make_trial(tmp_path, objective=objective)
    time_update(trial, ROWS, 0.25, 0.0)
    optimizer: Any = trial.parts.optimizer
    # Row n has n % 3 predicted tokens and a gradient of n for each; the update divides by their count.
    assert optimizer.gradients == pytest.approx([1 / 1, (1 + 4 + 2 * 2 + 2 * 5) / (1 + 2 + 1 + 2)])
    assert objective.progress == [0.25] * (1 + 3)
    assert all(parameter.grad is None for parameter in trial.parts.model.parameters())


def test_a_row_that_does_not_fit_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objective = FakeObjective()
    objective.largest = 0
    trial = make_trial(tmp_path, objective=objective, micro_rows=1)
    with pytest.raises(CramError, match="does not fit in the memory"):
        time_update(trial, ROWS, 0.5, 0.0)
    assert torch.cuda.is_available() or not capsys.readouterr().out
