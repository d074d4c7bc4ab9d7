"""Timing inside a run: the shapes that a plan would choose are timed one after the other until the choice stands.

One timed shape only scales the cost model, whose proportions are those of another machine. So a larger shape is timed
too, where there is time, and the model is fitted between the two.
"""

from collections.abc import Callable, Sequence

from cram.planner.plan import Candidate, Plan
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape

LARGER = (1.5, 4.0)  # times the seconds of the choice that the larger shape is expected to take, at least and at most


def search_plan(
    plan_of: Callable[[Sequence[TimedShape]], Plan],
    measure: Callable[[Shape], TimedShape],
    is_time_up: Callable[[Candidate], bool],
) -> tuple[Plan, list[TimedShape]]:
    """Time the shape that the plan chooses, plan anew, and go on until the choice was timed or the time is up.

    If the first choice stands, a larger shape of updates of the same size is timed before the search ends.

    Args:
        plan_of: makes the plan that follows from the shapes timed so far.
        measure: times updates of a shape.
        is_time_up: whether there is no time left to time a candidate.

    Returns:
        The last plan and the shapes that were timed, one at least.
    """
    timed: list[TimedShape] = []
    plan = plan_of(timed)
    while (candidate := _next_candidate(plan, timed, is_time_up)) is not None:
        timed.append(measure(candidate.shape))
        plan = plan_of(timed)
    return plan, timed


def _next_candidate(
    plan: Plan, timed: Sequence[TimedShape], is_time_up: Callable[[Candidate], bool]
) -> Candidate | None:
    """What is timed next: the choice, or after the first one a larger shape; None where the search ends."""
    chosen = plan.chosen
    if not timed:
        return chosen
    if chosen.shape not in [item.shape for item in timed]:
        return None if is_time_up(chosen) else chosen
    if len(timed) > 1:
        return None
    least, most = (factor * chosen.seconds for factor in LARGER)
    larger = [
        candidate
        for candidate in plan.candidates
        if candidate.shape.batch_tokens == chosen.shape.batch_tokens
        and least <= candidate.seconds <= most
        and not is_time_up(candidate)
    ]
    return max(larger, key=lambda candidate: candidate.seconds, default=None)
