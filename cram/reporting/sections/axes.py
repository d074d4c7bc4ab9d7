"""The axes that curves of runs are drawn over, and the place of each record on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cram.reporting.page.blocks import Axis
from cram.reporting.reading.columns import Column
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
        columns = dict(run.train)
        flops = run.figure("model", "flops_per_position")
        if "flops" not in columns and "positions" in columns and is_number(flops):
            columns["flops"] = flops * columns["positions"]  # records of earlier versions do not have it
        found = {name: columns[field] for name, field in FIELDS.items() if field in columns}
        # A place never goes back, as it would after an update whose time was measured twice.
        self.train: dict[str, Column] = {
            name: np.maximum.accumulate(values) for name, values in found.items() if not np.isnan(values).any()
        }
        # Without a record of training, a run has the places that every record has.
        self.names = list(self.train) if run.of_kind("train") else ["seconds", "updates"]
        self._starting = {name: np.concatenate([[0.0], values]) for name, values in self.train.items()}

    def of(self, record: dict[str, Any]) -> dict[str, float]:
        """The place of a record of any kind on each axis."""
        between = self.at_update(record["step"])
        return {
            name: float(value) if is_number(value := record.get(FIELDS[name])) else between[name] for name in self.names
        }

    def at_update(self, update: float) -> dict[str, float]:
        """The place of the end of an update on each axis, interpolated between the records of training."""
        if not self._starting:
            return {"seconds": 0.0, "updates": float(update)}
        steps = self._starting["updates"]
        places = {name: float(np.interp(update, steps, values)) for name, values in self._starting.items()}
        return places | {"updates": float(update)}


def shared_axes(places: Sequence[Places], first: str | None = None) -> list[Axis]:
    """The axes that all runs have.

    Args:
        places: of each run.
        first: name of the axis that is shown first; None for the first of `FIELDS`.
    """
    names = [name for name in FIELDS if all(name in one.names for one in places)]
    return [Axis(name, LABELS[name]) for name in sorted(names, key=lambda name: name != first)]
