import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.choices import SCHEDULES
from cram.config.training import BatchConfig, ScheduleConfig
from cram.optim.schedule import (
    batch_tokens,
    decay_begins,
    linear,
    make_others_schedule,
    make_rate_progress,
    make_schedule,
)

KINDS = list(SCHEDULES)
progresses = st.floats(0, 1)


@pytest.mark.parametrize("kind", KINDS)
@given(progress=progresses)
def test_a_multiplier_is_never_below_zero_nor_above_one_and_lands_at_zero(kind: str, progress: float) -> None:
    schedule = make_schedule(ScheduleConfig(kind=kind))
    assert 0.0 <= schedule(progress) <= 1.0
    assert schedule(1.0) == pytest.approx(0.0, abs=1e-12)
    assert max(schedule(step / 1000) for step in range(1001)) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_is_continuous(kind: str) -> None:
    schedule = make_schedule(ScheduleConfig(kind=kind))
    steps = [abs(schedule((step + 1) / 10_000) - schedule(step / 10_000)) for step in range(10_000)]
    assert max(steps) < 0.01


@pytest.mark.parametrize(
    ("kind", "progress", "value"),
    [
        ("linear", 0.01, 0.5),
        ("linear", 0.51, 0.5),
        ("cosine", 0.51, 0.5),
        ("trapezoid", 0.2, 1.0),
        ("trapezoid", 0.675, 0.5),
        ("triangle", 0.25, 0.5),
        ("triangle", 0.75, 0.5),
        ("budget-triangle2", 0.0, 0.25),
        ("budget-triangle2", 0.5, 0.75),
        ("budget-triangle2", 0.75, 1.0),
        ("budget-triangle2", 0.875, 0.5),
    ],
)
def test_known_points(kind: str, progress: float, value: float) -> None:
    assert make_schedule(ScheduleConfig(kind=kind))(progress) == pytest.approx(value)


@pytest.mark.parametrize("kind", KINDS)
@given(progress=progresses, begins=st.floats(0, 0.99))
def test_others_rise_as_the_matrices_do_and_fall_in_a_line_of_their_own(
    kind: str, progress: float, begins: float
) -> None:
    config = ScheduleConfig(kind=kind, others_decay_start=begins)
    others = make_others_schedule(config)
    assert others is not None
    fall = 1.0 if progress <= begins else (1.0 - progress) / (1.0 - begins)
    rise = {"triangle": progress / 0.5, "budget-triangle2": 1.0}.get(kind, progress / 0.02)
    assert others(progress) == pytest.approx(min(1.0, rise, fall))
    usual = ScheduleConfig(kind=kind)
    assert decay_begins(config) == min(begins, decay_begins(usual))
    assert make_others_schedule(usual) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "budget-triangle2"])
@given(size=st.floats(1e-6, 1), warmup=st.floats(0, 0.5))
def test_the_first_and_the_last_update_have_a_rate_above_zero(kind: str, size: float, warmup: float) -> None:
    config = ScheduleConfig(kind=kind, warmup=warmup)
    schedule, rate_progress = make_schedule(config), make_rate_progress(config)
    assert schedule(rate_progress(0.0, size)) > 0.0
    assert schedule(rate_progress(1.0 - size, 1.0)) > 0.0


@pytest.mark.parametrize("kind", KINDS)
@given(ends=st.lists(progresses, min_size=1).map(sorted))
def test_rates_are_read_inside_of_an_update_and_never_step_back(kind: str, ends: list[float]) -> None:
    rate_progress = make_rate_progress(ScheduleConfig(kind=kind))
    read = [rate_progress(begin, end) for begin, end in zip([0.0, *ends], ends, strict=False)]
    assert all(begin <= at <= end for begin, at, end in zip([0.0, *ends], read, ends, strict=False))
    assert read == sorted(read)


def test_crammings_schedule_is_read_at_the_end_and_the_others_in_the_middle() -> None:
    read = {kind: make_rate_progress(ScheduleConfig(kind=kind))(0.2, 0.4) for kind in KINDS}
    assert {kind for kind, at in read.items() if at == 0.4} == {"budget-triangle2"}
    assert all(at == pytest.approx(0.3) for kind, at in read.items() if kind != "budget-triangle2")


def test_no_warmup_begins_at_the_peak() -> None:
    assert make_schedule(ScheduleConfig(kind="linear", warmup=0.0))(0.0) == 1.0


def test_linear_goes_from_start_to_end_and_clamps() -> None:
    rate = linear(0.3, 0.15)
    assert [rate(0.0), rate(0.5), rate(1.0), rate(1.2)] == pytest.approx([0.3, 0.225, 0.15, 0.15])


def test_the_batch_ramps_to_its_size() -> None:
    size = batch_tokens(BatchConfig(tokens=1000, start_tokens=200, ramp=0.5))
    assert [size(0.0), size(0.25), size(0.5), size(1.0)] == pytest.approx([200, 600, 1000, 1000])
    assert batch_tokens(BatchConfig(tokens=1000))(0.0) == 1000
