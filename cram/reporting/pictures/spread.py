"""A picture of values with their spread: a line for each group, with every value, the mean, and the range."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cram.reporting.pictures.palette import INK, MUTED, series_color
from cram.reporting.pictures.svg import draw_svg, replace_half_pairs

WIDTH, LINE_HEIGHT, FRAME_HEIGHT = 6.0, 0.26, 0.75  # inches: the height is that of each group and the frame
LONGEST_LABEL = 34  # characters of a label, which must leave room for the values


@dataclass(frozen=True)
class Spread:
    """The values of a group.

    Attributes:
        label: name of the group.
        values: one at least.
        color: index into the palette.
    """

    label: str
    values: Sequence[float]
    color: int = 0

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return statistics.fmean(self.values)


def draw_spread(name: str, groups: Sequence[Spread], x_label: str, reference: float | None = None) -> str:
    """Draw groups from top to bottom as given.

    Args:
        name: unique on the page.
        groups: one at least.
        x_label: what the values are, with the unit.
        reference: a value that a dashed vertical line stands at; None for no line.

    Returns:
        An SVG element.
    """

    def draw(_figure: Any, axes: Any) -> None:
        if reference is not None:
            axes.axvline(reference, color=MUTED, linestyle="--", linewidth=1)
        for place, group in enumerate(groups):
            color = series_color(group.color)
            axes.plot([min(group.values), max(group.values)], [place, place], "-", color=color, linewidth=1.6)
            axes.plot(group.values, [place] * len(group.values), "o", color=color, markersize=5, alpha=0.8)
            if len(group.values) > 1:
                axes.plot([group.mean], [place], "|", color=INK, markersize=12, markeredgewidth=1.8)
        axes.set_yticks(
            range(len(groups)), [_shorten(replace_half_pairs(group.label)) for group in groups], parse_math=False
        )
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.set_xlabel(x_label)
        axes.grid(axis="y", visible=False)

    return draw_svg(name, draw, WIDTH, height=FRAME_HEIGHT + LINE_HEIGHT * len(groups))


def _shorten(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
