"""The held-out loss of several runs at equal time, tokens and compute: where the shortest of them ends."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cram.reporting.page.blocks import Block, Cell, Column, Table, Text
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.axes import Places
from cram.reporting.sections.comparable import losses_compare
from cram.reporting.sections.formats import (
    ABSENT,
    format_fixed,
    format_flops,
    format_large,
    format_seconds,
    format_whole,
    is_number,
)

FORMATS = {
    "seconds": format_seconds,
    "tokens": lambda value: f"{format_large(value)} tokens",
    "updates": lambda value: f"{format_whole(value)} updates",
    "flops": format_flops,
}


@dataclass(frozen=True)
class LossCurve:
    """The held-out losses of a run over one axis.

    Attributes:
        places: ascending, above 0.
        nats: per predicted token, as many.
    """

    places: Sequence[float]
    nats: Sequence[float]

    @classmethod
    def of(cls, run: RunData, places: Places, axis: str) -> "LossCurve":
        """Take the losses of a run that are finite, the last one of each place."""
        points: dict[float, float] = {}
        for record in run.of_kind("held_out"):
            place, nats = places.of(record).get(axis, 0.0), record.get("nats_per_token")
            if place > 0 and is_number(nats):
                points[place] = float(nats)
        ordered = sorted(points.items())
        return cls([place for place, _ in ordered], [nats for _, nats in ordered])

    def at(self, place: float) -> float | None:
        """The loss at a place, by a straight line in the logarithm of the place; None outside of the curve."""
        right = bisect.bisect_left(self.places, place)
        if right == len(self.places):
            return None
        if self.places[right] == place:
            return self.nats[right]
        if right == 0:
            return None
        left = right - 1
        whole = math.log(self.places[right] / self.places[left])
        share = math.log(place / self.places[left]) / whole
        return self.nats[left] + share * (self.nats[right] - self.nats[left])


def equal_budget_blocks(
    runs: Sequence[RunData], places: Sequence[Places], labels: Sequence[str], axes: Sequence[str]
) -> list[Block]:
    """Compare the losses of runs where the shortest of them ends, on each axis.

    Args:
        runs: two at least.
        places: of their records.
        labels: their names, all different.
        axes: names of the axes that all runs share.
    """
    columns, lines, compare = [Column("run")], [[Cell(label)] for label in labels], losses_compare(runs)
    for axis in axes:
        curves = [LossCurve.of(run, of_run, axis) for run, of_run in zip(runs, places, strict=True)]
        ends = [curve.places[-1] for curve in curves if curve.places]
        if len(ends) < 2:
            continue
        end = min(ends)
        losses = [curve.at(end) for curve in curves]
        known = [loss for loss in losses if loss is not None]
        if len(known) < 2:
            continue
        columns.append(Column(f"at {FORMATS[axis](end)}", "nats", numeric=True))
        for line, loss in zip(lines, losses, strict=True):
            line.append(_cell(loss, min(known) if compare else None))
    if len(columns) == 1:
        return [Text("The runs were not evaluated often enough to be compared at equal budgets.", "note")]
    note = (
        "Each column is the end of the shortest run on that axis. Losses between two evaluations are interpolated. A "
        "run that ends there has lowered its learning rate by then, and one that goes on has not yet."
    )
    return [Table(columns, lines, note=note)]


def _cell(loss: float | None, best: float | None) -> Cell:
    if loss is None:
        return Cell(ABSENT)
    return Cell(format_fixed(loss), loss, tone="good" if loss == best else "plain")
