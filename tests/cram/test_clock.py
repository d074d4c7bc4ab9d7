import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.clock import Budget, Clock, parse_duration
from cram.errors import CramError


class Time:
    """A clock hand that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "clock", "limit"),
    [
        ("90s", "wall", 90),
        ("10m", "wall", 600),
        ("1.5h", "wall", 5400),
        ("24h", "wall", 86400),
        ("2.5e9tokens", "tokens", 2.5e9),
        ("5000steps", "steps", 5000),
        (" 1d ", "wall", 86400),
    ],
)
def test_budgets_are_read(text: str, clock: str, limit: float) -> None:
    assert Budget.parse(text) == Budget(clock, limit)


@pytest.mark.parametrize(
    "text", ["0s", "-1h", "10 parsecs", "", "h", "1e999s", "0steps", "0.5steps", "5 000steps", "nans", "10", "rst:24h"]
)
def test_other_budgets_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(CramError, match=r"^budget=.*90s, 10m or 24h"):
        Budget.parse(text)


@given(st.integers(1, 10**12))
def test_every_count_and_duration_is_read_back(number: int) -> None:
    assert Budget.parse(f"{number}steps").limit == number
    assert Budget.parse(f"{number}tokens").limit == number
    assert Budget.parse(f"{number}m").limit == 60 * number


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_cram_error(text: str) -> None:
    try:
        assert Budget.parse(text).limit > 0
    except CramError as error:
        assert text in str(error)


def test_durations_name_their_key() -> None:
    with pytest.raises(CramError, match=r"checkpoint\.interval=soon"):
        parse_duration("soon", "checkpoint.interval")


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
    assert clock.progress() == pytest.approx(0.13)


def test_time_before_an_error_is_booked() -> None:
    time = Time()
    clock = Clock(Budget("wall", 100), now=time)
    with pytest.raises(RuntimeError), clock.account("waiting"):
        time.now = 4
        raise RuntimeError
    assert clock.seconds("waiting") == 4


def test_lost_time_of_a_crash_is_charged() -> None:
    clock = Clock(Budget("wall", 100), now=Time())
    clock.resume({"updates": 3, "positions": 96, "booked": {"updates": 20.0}, "seconds_per_position": 0.5})
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
        first.learn_pace(7.0 / 64)
        state = first.state()
    second = Clock(Budget("wall", 100), now=time)
    with second.account("preparation"):
        time.now = 9
    second.resume(state)
    assert (second.updates, second.positions) == (1, 64)
    assert second.seconds("updates") == 7
    assert second.seconds("preparation") == 2
    assert second.seconds_per_position == first.seconds_per_position


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
        clock.learn_pace(0.1 / 128)
    assert len(progress) == steps
    assert progress == [pytest.approx((step + 1) / steps) for step in range(steps)]


@given(limit=st.integers(1, 100_000), batch=st.integers(1, 5000))
def test_tokens_end_within_half_an_update(limit: int, batch: int) -> None:
    clock = Clock(Budget("tokens", limit), now=Time())
    while clock.progress_after(batch) < 1.0:
        clock.count_update(batch)
        clock.learn_pace(0.1 / batch)
    clock.count_update(batch)
    clock.learn_pace(0.1 / batch)
    assert abs(clock.positions - limit) <= 0.5 * batch or clock.updates == 1
