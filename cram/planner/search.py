"""Timing inside a run: the shapes that a plan would choose are timed one after the other until the choice stands."""

from collections.abc import Callable, Sequence

from cram.planner.plan import Plan
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape


def search_plan(
    plan_of: Callable[[Sequence[TimedShape]], Plan],
    measure: Callable[[Shape], TimedShape],
    is_time_up: Callable[[Plan], bool],
) -> tuple[Plan, list[TimedShape]]:
    """Time the shape that the plan chooses, plan anew, and go on until the choice was timed or the time is up.

    Args:
        plan_of: makes the plan that follows from the shapes timed so far.
        measure: times updates of a shape.
        is_time_up: whether there is no time left to time the choice of a plan.

    Returns:
        The last plan and the shapes that were timed, one at least.
    """
    timed: list[TimedShape] = []
    plan = plan_of(timed)
    while plan.chosen.shape not in [item.shape for item in timed] and not (timed and is_time_up(plan)):
        timed.append(measure(plan.chosen.shape))
        plan = plan_of(timed)
    return plan, timed
