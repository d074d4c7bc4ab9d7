"""Timing inside a run: the choice is timed until it stands."""

import math
from collections.abc import Callable, Sequence

from cram.budget import Budget
from cram.planner.plan import Plan, Size, make_plan
from cram.planner.search import search_plan
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape

SHAPES = tuple(Shape(1, width, width // 16, 2 * width, 512) for width in (32, 64, 128, 256, 512, 1024))


def modelled(shape: Shape) -> float:
    return 1e-5 * shape.width


class Law:
    def predict(self, parameters: float, tokens: float, batch: float) -> float:
        return 0.5 * (1e4 / parameters) ** 0.2 + 0.5 * (1e5 / tokens) ** 0.2

    def covers(self, parameters: float, tokens: float, batch: float) -> bool:
        return True


def plan_of(timed: Sequence[TimedShape]) -> Plan:
    seconds = {item.shape: item.seconds for item in timed}

    def size_of(shape: Shape) -> Size:
        return Size(shape.width**2, shape.width**2, 0)

    def seconds_of(shape: Shape) -> tuple[float, bool]:
        return seconds.get(shape, modelled(shape)), shape in seconds

    return make_plan(SHAPES, size_of, seconds_of, Budget("wall", 1.0), None, Law(), 50.0)


def times(factor_of: Callable[[Shape], float]) -> Callable[[Shape], TimedShape]:
    return lambda shape: TimedShape(shape, factor_of(shape) * modelled(shape), 0.3)


def test_the_chosen_shape_was_timed() -> None:
    made, timed = search_plan(plan_of, times(lambda _: 3.0), lambda _: False)
    assert made.chosen.shape in [item.shape for item in timed]
    assert made.chosen.measured


def test_a_shape_that_is_slower_than_modelled_loses_its_place() -> None:
    first = plan_of([]).chosen.shape
    made, timed = search_plan(plan_of, times(lambda shape: 50.0 if shape == first else 1.0), lambda _: False)
    assert timed[0].shape == first
    assert made.chosen.shape != first


def test_one_shape_is_timed_even_without_time() -> None:
    _, timed = search_plan(plan_of, times(lambda _: 50.0), lambda _: True)
    assert len(timed) == 1


def test_a_shape_that_does_not_fit_into_memory_is_not_chosen() -> None:
    first = plan_of([]).chosen.shape
    made, _ = search_plan(plan_of, times(lambda shape: math.inf if shape == first else 1.0), lambda _: False)
    assert made.chosen.shape != first


def test_a_larger_shape_is_timed_too_so_that_one_that_is_quicker_than_modelled_is_found() -> None:
    first = plan_of([]).chosen.shape
    made, timed = search_plan(plan_of, times(lambda shape: 0.1 if shape.width > first.width else 1.0), lambda _: False)
    second = timed[1].shape
    assert first.width < second.width and second.batch_tokens == first.batch_tokens
    assert 1.5 <= modelled(second) / modelled(first) <= 4.0
    assert made.chosen.shape == second


def test_the_largest_shape_that_there_is_time_for_is_timed_and_none_after_it() -> None:
    seconds = modelled(plan_of([]).chosen.shape)
    _, timed = search_plan(plan_of, times(lambda _: 1.0), lambda candidate: candidate.seconds > 2.5 * seconds)
    assert [item.seconds / seconds for item in timed] == [1.0, 2.0]
    _, timed = search_plan(plan_of, times(lambda _: 1.0), lambda candidate: candidate.seconds > 1.2 * seconds)
    assert len(timed) == 1
