"""Shapes are timed within their seconds, in alternating order."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.planner.ladder import shape_ladder
from cram.planner.shape import Shape
from cram.planner.throughput import spread_shapes, time_shapes

LADDER = shape_ladder("encoder", "cpu", 128)
A, B, C = LADDER[:3]


class Machine:
    """A clock, and updates that take the seconds given for their shape; a measurement takes `overhead` more."""

    def __init__(self, seconds: dict[Shape, list[float]], overhead: float = 0.0) -> None:
        self.now, self.seconds, self.overhead = 0.0, seconds, overhead
        self.order: list[Shape] = []

    def measure(self, shape: Shape) -> float:
        number = self.order.count(shape)
        self.order.append(shape)
        seconds = self.seconds[shape][number % len(self.seconds[shape])]
        self.now += self.overhead + (0.0 if math.isinf(seconds) else seconds)
        return seconds

    def clock(self) -> float:
        return self.now


def test_medians_of_rounds_in_alternating_order() -> None:
    machine = Machine({A: [1.0, 9.0, 2.0], B: [4.0, 3.0, 50.0]})
    timed = time_shapes([A, B], machine.measure, 1000.0, 0.3, clock=machine.clock)
    assert machine.order == [A, B, B, A, A, B]
    assert [(item.shape, item.seconds, item.share) for item in timed] == [(A, 2.0, 0.3), (B, 4.0, 0.3)]


def test_it_ends_with_the_seconds_and_times_one_shape_at_least() -> None:
    machine = Machine({A: [5.0], B: [1.0], C: [1.0]})
    assert [item.shape for item in time_shapes([A, B, C], machine.measure, 6.0, 1.0, clock=machine.clock)] == [A, B]
    machine = Machine({A: [5.0], B: [1.0], C: [1.0]})
    assert [item.shape for item in time_shapes([A, B, C], machine.measure, 0.0, 1.0, clock=machine.clock)] == [A]


def test_what_is_expected_to_end_too_late_is_not_begun() -> None:
    """The updates take twice as long as expected, so that B would take four seconds, and C one."""
    machine = Machine({A: [2.0], B: [4.0], C: [1.0]})
    expected = {A: 1.0, B: 2.0, C: 0.5}
    timed = time_shapes(
        [A, B, C], machine.measure, 3.5, 1.0, rounds=1, expected=expected.__getitem__, clock=machine.clock
    )
    assert [item.shape for item in timed] == [A, C]


def test_a_shape_that_does_not_fit_is_tried_once() -> None:
    machine = Machine({A: [math.inf], B: [1.0]}, overhead=0.5)
    timed = time_shapes([A, B], machine.measure, 1000.0, 0.3, clock=machine.clock)
    assert [item.seconds for item in timed] == [math.inf, 1.0]
    assert machine.order.count(A) == 1


@given(st.integers(1, 12), st.randoms(use_true_random=False), st.floats(0.0, 20.0))
def test_no_measurement_begins_after_the_seconds(number: int, source: random.Random, seconds: float) -> None:
    shapes = source.sample(LADDER, number)
    machine = Machine({shape: [source.uniform(0.01, 3.0)] for shape in shapes})
    longest = max(max(times) for times in machine.seconds.values())
    time_shapes(shapes, machine.measure, seconds, 0.3, clock=machine.clock)
    assert machine.now <= seconds + longest
    machine = Machine(machine.seconds)
    expected = {shape: times[0] / 2 for shape, times in machine.seconds.items()}
    time_shapes(shapes, machine.measure, seconds, 0.3, expected=expected.__getitem__, clock=machine.clock)
    assert machine.now <= max(seconds, machine.seconds[shapes[0]][0]) + 1e-6


def test_spread_shapes_reach_the_ends_of_the_ladder() -> None:
    chosen = spread_shapes(LADDER, 9)
    assert len(set(chosen)) == 9
    assert chosen[0].layers in (3, 4) and 64 <= chosen[0].width <= 192 and 1024 <= chosen[0].batch_tokens <= 4096
    assert {shape.batch_tokens for shape in chosen[1:5]} == {256, 16384}
    assert min(shape.width for shape in chosen) == 32 and max(shape.width for shape in chosen) == 512
    assert spread_shapes(LADDER, 4) == chosen[:4]
    assert sorted(map(repr, spread_shapes(LADDER, 10**6))) == sorted(map(repr, LADDER))


@pytest.mark.parametrize("number", [1, 5])
def test_one_shape_is_its_own_spread(number: int) -> None:
    assert spread_shapes([A], number) == [A]
