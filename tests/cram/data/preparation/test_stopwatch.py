import pytest

from cram.data.preparation import stopwatch
from cram.data.preparation.stopwatch import Stopwatch, add_seconds


def test_each_lap_lasts_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "perf_counter", iter([10.0, 11.0, 13.0, 17.0]).__next__)
    watch = Stopwatch()
    for activity in ("reading", "writing", "reading"):
        watch.lap(activity)
    assert watch.seconds == {"reading": 5.0, "writing": 2.0}


def test_seconds_are_added_by_activity() -> None:
    total = {"reading": 1.0, "writing": 2.0}
    add_seconds(total, {"writing": 0.5, "packing": 4.0})
    assert total == {"reading": 1.0, "writing": 2.5, "packing": 4.0}
