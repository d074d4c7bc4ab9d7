from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.training.thread_watch import LEAST_WAIT, WINDOW_UPDATES, ThreadWatch


def run_updates(watch: ThreadWatch, paces: Iterable[float], threads: int = 2, now: float = 1000.0) -> list[bool]:
    """Count updates of a position with these seconds, and ask after each, long after the last measurement."""
    found = []
    for seconds in paces:
        watch.count("a kind", 1, seconds)
        found.append(watch.is_due(now, 1e9, threads))
    return found


def test_slow_updates_ask_for_a_measurement() -> None:
    watch = ThreadWatch(2, now=0.0, cost=1.0)
    assert not any(run_updates(watch, [1.0] * 30))
    assert not any(run_updates(watch, [1.4] * 30))  # more than 0.7 of the pace
    found = run_updates(watch, [1.5] * 30)
    assert found.index(True) < WINDOW_UPDATES
    assert all(found[found.index(True) :])
    assert not any(run_updates(watch, [1.0] * 30)[WINDOW_UPDATES:])  # the machine is free again


def test_an_update_that_was_held_up_asks_for_nothing() -> None:
    watch = ThreadWatch(2, now=0.0, cost=1.0)
    run_updates(watch, [1.0] * WINDOW_UPDATES)
    assert not any(run_updates(watch, [1.0, 1000.0] + [1.0] * 28))
    assert any(run_updates(watch, [1.0, 1000.0, 1.0] * 10))


@pytest.mark.parametrize(("seconds", "updates"), [(0.01, 200), (0.2, 10), (1.0, 10), (2.5, 8), (30.0, 2)], ids=str)
def test_long_updates_are_judged_after_few_and_short_ones_after_many(seconds: float, updates: int) -> None:
    watch = ThreadWatch(2, now=0.0, cost=1.0)
    assert not any(run_updates(watch, [seconds] * 4 * updates))
    asked = run_updates(watch, [2.0 * seconds] * 4 * updates).index(True) + 1
    assert 0.4 * updates <= asked <= 2.0 * updates


def test_updates_of_another_kind_are_not_compared() -> None:
    watch = ThreadWatch(2, now=0.0, cost=1.0)
    for kind in range(20):
        for _ in range(30):
            watch.count(kind, 1, 1.0 + kind)
            assert not watch.is_due(1000.0, 1e9, 2)


def test_what_was_slow_is_the_measure_after_a_measurement() -> None:
    watch = ThreadWatch(2, now=0.0, cost=1.0)
    run_updates(watch, [1.0] * 20)
    assert any(run_updates(watch, [3.0] * 20))
    watch.measured(1000.0, 1.0, changed=False)
    assert not any(run_updates(watch, [3.0] * 40, now=1e6))
    assert any(run_updates(watch, [9.0] * 40, now=1e6))


def test_fewer_threads_are_measured_again_after_waits_that_double() -> None:
    watch, now, asked = ThreadWatch(2, now=0.0, cost=1.0), 0.0, []
    while now < 1000.0:
        now += 1.0
        assert not watch.is_due(now, 1e9, 2)
        if watch.is_due(now, 1e9, 1):
            asked.append(now)
            watch.measured(now, 1.0, changed=False)
    assert asked == [10.0, 35.0, 85.0, 185.0, 385.0, 785.0]
    watch.measured(now, 1.0, changed=True)
    assert [watch.is_due(now + waited, 1e9, 1) for waited in (24.0, 25.0)] == [False, True]


def test_slow_updates_wait_for_a_hundred_times_the_cost_at_most() -> None:
    watch = ThreadWatch(2, now=0.0, cost=1.0)
    for _ in range(10):
        watch.measured(0.0, 1.0, changed=False)
    run_updates(watch, [1.0] * 20 + [3.0] * 20, now=0.0)
    assert [watch.is_due(now, 1e9, 2) for now in (99.0, 100.0)] == [False, True]
    assert not watch.is_due(100.0, 9.0, 2), "the budget ends before it would pay"


@given(cost=st.floats(1e-3, 100.0), changed=st.booleans(), busy=st.booleans())
@settings(max_examples=20)
def test_measurements_take_a_small_share_of_the_time(cost: float, changed: bool, busy: bool) -> None:
    watch, now, spent = ThreadWatch(2, now=0.0, cost=cost), 0.0, 0.0
    step = max(LEAST_WAIT, cost)
    while now < 400.0 * step:
        now += step
        for _ in range(WINDOW_UPDATES):
            watch.count("a kind", 1, step * (3.0 if busy and now > 100.0 * step else 1.0))
        if watch.is_due(now, 1e12, 1):
            now += cost
            spent += cost
            watch.measured(now, cost, changed)
    assert spent <= (0.04 if changed else 0.02) * now
