from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.budget import Budget
from cram.clock import CHARGED, NOT_CHARGED, PACE_UPDATES, Clock, boot_clock


class Time:
    """A clock hand that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_accounts_nest_without_booking_a_second_twice() -> None:
    time = Time()
    clock = Clock(Budget("wall", 100), now=time)
    with clock.account("updates"):
        time.now = 10
        with clock.account("evaluation"):
            time.now = 15
        time.now = 18
        assert clock.seconds("updates") == 13
    time.now = 50  # belongs to nobody
    assert clock.seconds("updates") == 13
    assert clock.seconds("evaluation") == 5
    assert clock.charged() == 13


def test_time_before_an_error_is_booked() -> None:
    time = Time()
    clock = Clock(Budget("wall", 100), now=time)
    with pytest.raises(RuntimeError), clock.account("waiting"):
        time.now = 4
        raise RuntimeError
    assert clock.seconds("waiting") == 4


def test_lost_time_of_a_crash_is_charged() -> None:
    clock = Clock(Budget("wall", 100), now=Time())
    clock.resume(Clock(Budget("wall", 100), now=Time()).state() | {"booked": {"updates": 20.0}})
    clock.charge_crash(31.0)
    assert clock.seconds("crash") == 11
    assert clock.charged() == 31
    clock.charge_crash(5.0)  # a beat older than the checkpoint lost nothing
    assert clock.charged() == 31


def test_state_is_resumed_and_added_to_what_is_booked() -> None:
    time = Time()
    first = Clock(Budget("wall", 100), now=time)
    with first.account("updates"):
        time.now = 7
        first.count_update(64)
        first.end_update(64)
        state = first.state()
    second = Clock(Budget("wall", 100), now=time)
    with second.account("preparation"):
        time.now = 9
    second.resume(state)
    assert (second.updates, second.positions, second.update_positions) == (1, 64, 64)
    assert second.seconds("updates") == 7
    assert second.seconds("preparation") == 2
    assert second.seconds_per_position == first.seconds_per_position == 7.0 / 64


@given(limit=st.floats(5, 500), pace=st.floats(0.05, 4), jitter=st.lists(st.floats(0.7, 1.3), min_size=1, max_size=50))
def test_a_wall_clock_run_ends_within_one_update_and_at_progress_one(
    limit: float, pace: float, jitter: list[float]
) -> None:
    time = Time()
    clock = Clock(Budget("wall", limit), now=time)
    clock.learn_pace(pace)
    progress, longest, before = 0.0, 0.0, 0.0
    with clock.account("updates"):
        while progress < 1.0:
            progress = clock.progress_after(1)
            assert before <= progress <= 1.0
            before = progress
            seconds = pace * jitter[clock.updates % len(jitter)]
            longest = max(longest, seconds)
            time.now += seconds
            clock.count_update(1)
            clock.learn_pace(seconds)
    assert progress == 1.0
    # Which update is the last is decided before it runs, by the pace that is known then: the first one may be shorter.
    assert abs(clock.charged() - limit) <= max(0.01 * limit, longest, pace) * (1 + 1e-9)


@given(steps=st.integers(1, 300))
def test_steps_are_counted_exactly(steps: int) -> None:
    clock = Clock(Budget("steps", steps), now=Time())
    progress = []
    while not progress or progress[-1] < 1.0:
        progress.append(clock.progress_after(128))
        clock.count_update(128)
        clock.learn_pace(0.1, 128)
    assert len(progress) == steps
    assert progress == [pytest.approx((step + 1) / steps) for step in range(steps)]


@given(limit=st.integers(1, 100_000), batch=st.integers(1, 5000))
def test_tokens_end_within_half_an_update(limit: int, batch: int) -> None:
    clock = Clock(Budget("tokens", limit), now=Time())
    while clock.progress_after(batch) < 1.0:
        clock.count_update(batch)
    clock.count_update(batch)
    assert clock.half_update() == 0.5 * batch
    assert abs(clock.positions - limit) <= 0.5 * batch or clock.updates == 1


class Run:
    """Updates of one position on a clock whose time is made: `wait`, then `work` seconds each."""

    def __init__(self, limit: float, time: Time | None = None) -> None:
        self.time = time or Time()
        self.clock = Clock(Budget("wall", limit), now=self.time)
        self.progress: list[float] = []

    def update(self, work: float, wait: float = 0.0, slow: str = "stalls") -> None:
        self.progress.append(self.clock.progress_after(1))
        with self.clock.account("waiting"):
            self.time.now += wait
        self.time.now += work
        self.clock.count_update(1)
        self.clock.end_update(1, slow)

    def updates(self, seconds: list[float]) -> None:
        with self.clock.account("updates"):
            self.clock.begin_updates()
            for work in seconds:
                self.update(work)


def test_the_excess_of_a_slow_update_is_a_stall_and_no_pace() -> None:
    run = Run(100.0)
    run.updates([0.5] * 8 + [20.5] + [0.5] * 2)
    assert (run.clock.stalls, run.clock.longest_stall) == (1, 20.0)
    assert run.clock.seconds("stalls") == 20.0
    assert run.clock.seconds("updates") == 5.5
    assert run.clock.charged() == run.time.now
    assert run.clock.seconds_per_position == 0.5


def test_a_stall_while_waiting_for_data_is_taken_from_the_waiting() -> None:
    run = Run(100.0)
    with run.clock.account("updates"):
        run.clock.begin_updates()
        for wait in (0.25, 0.25, 0.25, 0.25, 30.25, 0.25):
            run.update(0.5, wait)
    assert run.clock.seconds("stalls") == 30.0
    assert (run.clock.seconds("waiting"), run.clock.seconds("updates")) == (1.5, 3.0)


def test_a_stall_in_two_accounts_is_taken_from_both() -> None:
    run = Run(100.0)
    with run.clock.account("updates"):
        run.clock.begin_updates()
        for work, wait in ((1.0, 0.0),) * 5 + ((10.0, 8.0),):
            run.update(work, wait)
    assert run.clock.seconds("stalls") == 17.0
    assert (run.clock.seconds("waiting"), run.clock.seconds("updates")) == (1.0 + 7.0 - 1.0 - 6.0, 5.0)


def test_short_hiccups_few_updates_and_first_ones_are_no_stalls() -> None:
    run = Run(100.0)
    run.updates([0.25] * 6 + [1.0])  # four times the usual, but not by a second
    assert run.clock.stalls == 0
    run.updates([9.0, 0.25])  # the first of a process makes its buffers
    assert run.clock.stalls == 0
    early = Run(100.0)
    early.updates([0.25] * 3 + [9.0])  # three updates do not say what is usual
    assert early.clock.stalls == 0
    assert early.clock.seconds_per_position == 0.25  # but enough not to believe it


def test_what_is_known_to_be_slow_is_no_stall() -> None:
    run = Run(1000.0)
    with run.clock.account("updates"):
        run.clock.begin_updates()
        for slow in ("stalls",) * 5 + ("compilation", "updates"):
            run.update(0.5 if slow == "stalls" else 60.5, slow=slow)
    assert run.clock.stalls == 0
    assert (run.clock.seconds("compilation"), run.clock.seconds("updates")) == (60.0, 63.5)
    assert run.clock.seconds_per_position == 0.5


@pytest.mark.parametrize("factor", [0.1, 2.0, 10.0, 100.0])
def test_a_lasting_change_of_the_pace_is_learned_after_a_few_updates(factor: float) -> None:
    run = Run(1e6)
    run.updates([1.0] * 20 + [factor] * (PACE_UPDATES // 2 + 1))
    if factor > 3.0:
        assert run.clock.stalls == PACE_UPDATES // 2 + 1  # until then nothing tells it from stalls
    assert run.clock.seconds_per_position == pytest.approx(factor, rel=0.6)
    run.updates([factor] * PACE_UPDATES)
    assert run.clock.seconds_per_position == pytest.approx(factor)
    assert run.clock.stalls <= PACE_UPDATES // 2 + 1


def test_a_batch_that_grows_is_no_stall() -> None:
    time = Time()
    clock = Clock(Budget("wall", 1e6), now=time)
    with clock.account("updates"):
        clock.begin_updates()
        for positions in (1, 1, 1, 1, 64, 64):
            time.now += 2.0 * positions
            clock.end_update(positions)
    assert (clock.stalls, clock.seconds_per_position) == (0, 2.0)


def test_figures_that_come_late_are_one_update_each() -> None:
    """As on a GPU: an update is settled when the next one is on its way, and a stop lets both end at once."""
    run = Run(1000.0)
    run.updates([1.0] * 8 + [31.0, 0.0] + [1.0] * 3)
    assert (run.clock.stalls, run.clock.seconds("stalls")) == (1, 30.0)
    assert run.clock.seconds_per_position == 1.0


PACES = st.lists(st.floats(0.01, 5.0) | st.floats(10.0, 500.0), min_size=1, max_size=60)


@settings(max_examples=200)
@given(limit=st.floats(1.0, 400.0), paces=PACES, cut=st.integers(0, 60), fewer=st.integers(1, 3))
def test_progress_never_falls_and_no_second_is_lost_over_stalls_and_resumes(
    limit: float, paces: list[float], cut: int, fewer: int
) -> None:
    run = Run(limit)
    run.updates(paces[:cut])
    again = Run(limit, run.time)
    again.progress = run.progress
    again.clock.resume(run.clock.state())
    with again.clock.account("updates"):
        again.clock.begin_updates()
        for seconds in paces[cut:]:
            again.update(seconds, seconds / fewer)
    progress = again.progress
    assert all(before <= after <= 1.0 for before, after in pairwise(progress))
    booked = again.clock.state()["booked"]
    assert all(seconds >= -1e-9 for seconds in booked.values() if seconds is not None)
    assert again.clock.charged() == pytest.approx(again.time.now)


@settings(max_examples=200)
@given(
    pace=st.floats(0.05, 1.0),
    stalls=st.dictionaries(st.integers(5, 60), st.floats(5.0, 60.0), max_size=3),
    limit=st.floats(60.0, 200.0),
)
def test_a_run_uses_what_stalls_leave_to_half_an_update(pace: float, stalls: dict[int, float], limit: float) -> None:
    run = Run(limit)
    run.clock.learn_pace(pace)
    last_stalled = False
    with run.clock.account("updates"):
        run.clock.begin_updates()
        while not run.progress or run.progress[-1] < 1.0:
            stall = stalls.get(run.clock.updates, 0.0)
            overrun = run.time.now + 0.5 * pace > limit  # only a stall leaves so little before the last update
            last_stalled = bool(stall)
            run.update(pace + stall)
    assert run.clock.seconds("stalls") == pytest.approx(run.clock.charged() - pace * run.clock.updates, abs=1e-6)
    assert run.clock.half_update() == pytest.approx(0.5 * pace)
    if not (overrun or last_stalled):
        assert abs(run.clock.charged() - limit) <= 0.5 * pace * (1 + 1e-6)


def test_progress_of_a_longer_budget_begins_where_the_spent_share_stands() -> None:
    run = Run(10.0)
    run.updates([1.0] * 5)
    same, longer = Run(10.0), Run(100.0)
    for again in (same, longer):
        again.clock.resume(run.clock.state())
    assert run.progress[-1] == 0.5
    assert (same.clock.progress_after(1), longer.clock.progress_after(1)) == (0.6, 0.06)


def test_sleep_is_named_and_not_charged() -> None:
    time, boot = Time(), Time()
    boot.now = 1000.0
    clock = Clock(Budget("wall", 100), now=time, boot=boot)
    with clock.account("updates"):
        time.now, boot.now = 5.0, 1005.0
        assert clock.seconds("asleep") == 0.0
        time.now, boot.now = 6.0, 4606.0  # an hour's sleep
        assert clock.seconds("asleep") == 3600.0
        boot.now -= 2.0  # the two are not read at the same instant
        assert clock.seconds("asleep") == 3600.0
        boot.now += 2.0
    assert (clock.charged(), clock.seconds("asleep")) == (6.0, 3600.0)
    again = Clock(Budget("wall", 100), now=time, boot=boot)
    again.resume(clock.state())
    assert again.seconds("asleep") == 3600.0


def test_where_sleep_cannot_be_told_it_is_unknown() -> None:
    clock = Clock(Budget("wall", 100), now=Time())
    assert clock.state()["booked"]["asleep"] is None
    clock.resume(clock.state())
    assert clock.seconds("asleep") == 0.0


def test_the_boot_clock_runs_where_there_is_one() -> None:
    boot = boot_clock()
    if boot is not None:
        assert 0.0 < boot() <= boot()


def test_every_account_is_charged_or_not() -> None:
    assert not set(CHARGED) & set(NOT_CHARGED)
