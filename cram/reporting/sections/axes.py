"""The axes that curves of runs are drawn over, and the place of each record on them."""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

from cram.reporting.page.blocks import Axis
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.formats import is_number

# The field of a record that holds its place on each axis.
FIELDS = {"seconds": "charged_seconds", "tokens": "positions", "updates": "step", "flops": "flops"}
LABELS = {
    "seconds": "time charged to the budget, s",
    "tokens": "tokens seen",
    "updates": "updates",
    "flops": "floating-point operations",
}


class Places:
    """The places of the records of a run on each axis that the run has.

    A record of an earlier version that is not of training has only its update and its time. Its other places are
    interpolated between the records of training.

    Attributes:
        names: of the axes, in the order of `FIELDS`.
        train: for each axis, the places of the records of training, ascending.
    """

    def __init__(self, run: RunData) -> None:
        records = run.of_kind("train")
        self._flops = run.figure("model", "flops_per_position")
        self._steps: list[float] = [0.0, *(record["step"] for record in records)]
        self.train: dict[str, list[float]] = {}
        for name in FIELDS:
            values = [value for record in records if (value := self._value(record, name)) is not None]
            if len(values) == len(records):
                # A place never goes back, as it would after an update whose time was measured twice.
                self.train[name] = list(itertools.accumulate(values, max))
        # Without a record of training, a run has the places that every record has.
        self.names = list(self.train) if records else ["seconds", "updates"]

    def _value(self, record: dict[str, Any], name: str) -> float | None:
        value = record.get(FIELDS[name])
        if name == "flops" and value is None and is_number(self._flops) and is_number(record.get("positions")):
            value = record["positions"] * self._flops  # records of earlier versions do not have it
        return None if value is None or not is_number(value) else float(value)

    def of(self, record: dict[str, Any]) -> dict[str, float]:
        """The place of a record of any kind on each axis."""
        return {name: self._place(record, name) for name in self.names}

    def at_update(self, update: float) -> dict[str, float]:
        """The place of the end of an update on each axis."""
        return {name: update if name == "updates" else self._between(update, name) for name in self.names}

    def _place(self, record: dict[str, Any], name: str) -> float:
        value = self._value(record, name)
        return self._between(record["step"], name) if value is None else value

    def _between(self, update: float, name: str) -> float:
        """Interpolate a place between the records of training, of which the first begins at 0."""
        places = self.train.get(name)
        if not places:
            return 0.0
        right = bisect.bisect_left(self._steps, update)  # into the steps, which have a 0 before the first record
        if right == 0 or right == len(self._steps):
            return places[-1] if right else 0.0
        before, after = self._steps[right - 1], self._steps[right]
        lower, upper = places[right - 2] if right > 1 else 0.0, places[right - 1]
        return lower + (update - before) / max(after - before, 1.0) * (upper - lower)


def shared_axes(places: Sequence[Places], first: str | None = None) -> list[Axis]:
    """The axes that all runs have.

    Args:
        places: of each run.
        first: name of the axis that is shown first; None for the first of `FIELDS`.
    """
    names = [name for name in FIELDS if all(name in one.names for one in places)]
    return [Axis(name, LABELS[name]) for name in sorted(names, key=lambda name: name != first)]
