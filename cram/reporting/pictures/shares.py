"""Bars that show what a whole is made of: where the time went, where the parameters are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cram.reporting.pictures.palette import PAPER, series_color
from cram.reporting.pictures.svg import draw_svg

LEAST_LABELLED = 0.07  # share of the longest bar below which a part has no text in it
LEAST_SHOWN = 0.01  # share of the longest bar below which a part belongs to the rest
THOUSANDS = 10_000  # from which on the numbers of the axis have their thousands apart
LEGEND_COLUMNS = 6
REST, REST_COLOR = "the rest", 7
BAR_HEIGHT = 0.55  # inches


def draw_shares(
    name: str, bars: Sequence[tuple[str, Mapping[str, float]]], unit: str, write: Callable[[float], str]
) -> str:
    """Draw a bar for each whole, cut into its parts.

    Args:
        name: unique on its page.
        bars: the name of each whole, and its parts by name. Parts of the same name have the same colour; small ones
            are drawn as one.
        unit: of the horizontal axis.
        write: makes the text that stands in a part.

    Returns:
        An SVG element.
    """
    longest = max((sum(parts.values()) for _, parts in bars), default=0.0)
    shown = [(whole, _gather_small(parts, LEAST_SHOWN * longest)) for whole, parts in bars]
    names = list(dict.fromkeys(part for _, parts in shown for part in parts))
    turns = {part: number for number, part in enumerate(part for part in names if part != REST)}

    def draw(figure: Any, axes: Any) -> None:
        labelled = set()
        for row, (_, parts) in enumerate(shown):
            left = 0.0
            for part, value in parts.items():
                label = part if part not in labelled else None
                labelled.add(part)
                color, hatch = _look(turns.get(part))
                axes.barh(row, value, left=left, height=0.62, color=color, edgecolor=PAPER, hatch=hatch, label=label)
                if value >= LEAST_LABELLED * longest:
                    axes.text(left + value / 2, row, write(value), ha="center", va="center", color=PAPER, fontsize=9)
                left += value
        axes.set_yticks(range(len(bars)), [whole for whole, _ in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, longest or 1.0)
        axes.set_xlabel(unit)
        if longest >= THOUSANDS:
            axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        if names:
            columns = min(len(names), LEGEND_COLUMNS)
            legend = figure.legend(loc="outside upper left", ncols=columns, fontsize=9, handlelength=1.2)
            for text in legend.get_texts():
                text.set_parse_math(False)

    legend_rows = -(-len(names) // LEGEND_COLUMNS)
    return draw_svg(name, draw, height=0.75 + BAR_HEIGHT * len(bars) + 0.25 * legend_rows)


def _look(turn: int | None) -> tuple[str, str]:
    """Colour and hatch of a part by its place among the parts; None for the rest, whose colour no other part has."""
    if turn is None:
        return series_color(REST_COLOR), ""
    return series_color(turn % REST_COLOR), "/" if turn >= REST_COLOR else ""


def _gather_small(parts: Mapping[str, float], least: float) -> dict[str, float]:
    """The parts of a whole, with those below `least` as one at the end."""
    large = {part: value for part, value in parts.items() if value >= least and value > 0}
    rest = sum(parts.values()) - sum(large.values())
    return large | {REST: rest} if rest > least / 10 else large
