"""Throughput: updates of some shapes are timed, and the others follow from a cost model."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cram.planner.shape import Shape


@dataclass(frozen=True)
class TimedShape:
    """How long an update of a shape takes.

    Attributes:
        seconds: the median of all measurements; infinite for a shape that does not fit into memory.
        share: the share of its positions that was predicted.
    """

    shape: Shape
    seconds: float
    share: float


def time_shapes(
    shapes: Sequence[Shape],
    measure: Callable[[Shape], float],
    seconds: float,
    share: float,
    rounds: int = 3,
    expected: Callable[[Shape], float] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[TimedShape]:
    """Time updates of shapes, one after the other, and again in the opposite order, until the seconds are spent.

    The order alternates so that a machine that becomes slower or quicker meanwhile does not favour a shape. The first
    shape is timed in any case.

    Args:
        measure: gives the seconds of one update of a shape; `cram.build.make_measure` makes it.
        seconds: the time for all measurements. None is begun after it, nor one that is expected to end after it.
        share: the share of the positions that `measure` lets be predicted.
        rounds: how often each shape is timed at most.
        expected: the seconds of an update of a shape as they are known before.

    Returns:
        The shapes that were timed, in their order.
    """
    began = clock()
    times: dict[Shape, list[float]] = {}
    costs: list[float] = []  # seconds of each measurement, divided by those that were expected of an update
    for number in range(rounds):
        for shape in shapes if number % 2 == 0 else reversed(shapes):
            if math.inf in times.get(shape, []):
                continue
            ahead = max(costs, default=0.0) * expected(shape) if expected else 0.0
            started = clock()
            if times and started - began + ahead >= seconds:
                continue
            times.setdefault(shape, []).append(measure(shape))
            if expected:
                costs.append((clock() - started) / expected(shape))
    return [TimedShape(shape, statistics.median(times[shape]), share) for shape in shapes if shape in times]


def spread_shapes(shapes: Sequence[Shape], number: int) -> list[Shape]:
    """Choose shapes that are as different as possible: first the one in the middle, then always the farthest.

    Distances are those of the logarithms of layers, width and tokens of an update.
    """
    places = {shape: tuple(map(math.log, (shape.layers, shape.width, shape.batch_tokens))) for shape in shapes}
    middle = [statistics.median(values) for values in zip(*places.values(), strict=True)]
    chosen = [min(places, key=lambda shape: math.dist(places[shape], middle))]
    distances = dict.fromkeys(places, math.inf)
    while len(chosen) < min(number, len(places)):
        latest = places[chosen[-1]]
        distances = {shape: min(distances[shape], math.dist(place, latest)) for shape, place in places.items()}
        chosen.append(max(distances, key=lambda shape: distances[shape]))
    return chosen
