"""Bars that show what a whole is made of: where the time went, where the parameters are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cram.reporting.pictures.palette import PAPER, series_color
from cram.reporting.pictures.svg import draw_svg

LEAST_LABELLED = 0.07  # share of the longest bar below which a part has no text in it
BAR_HEIGHT = 0.55  # inches


def draw_shares(
    name: str, bars: Sequence[tuple[str, Mapping[str, float]]], unit: str, write: Callable[[float], str]
) -> str:
    """Draw a bar for each whole, cut into its parts.

    Args:
        name: unique on its page.
        bars: the name of each whole, and its parts by name. Parts of the same name have the same colour; parts that
            are 0 are left out.
        unit: of the horizontal axis.
        write: makes the text that stands in a part.

    Returns:
        An SVG element.
    """
    names = list(dict.fromkeys(part for _, parts in bars for part, value in parts.items() if value > 0))
    longest = max((sum(parts.values()) for _, parts in bars), default=0.0)

    def draw(figure: Any, axes: Any) -> None:
        labelled = set()
        for row, (_, parts) in enumerate(bars):
            left = 0.0
            for part, value in parts.items():
                if value <= 0:
                    continue
                number = names.index(part)
                label = part if part not in labelled else None
                labelled.add(part)
                axes.barh(row, value, left=left, height=0.62, color=series_color(number), edgecolor=PAPER, label=label)
                if value >= LEAST_LABELLED * longest:
                    axes.text(left + value / 2, row, write(value), ha="center", va="center", color=PAPER, fontsize=9)
                left += value
        axes.set_yticks(range(len(bars)), [whole for whole, _ in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, longest or 1.0)
        axes.set_xlabel(unit)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=min(len(names), 5) or 1, fontsize=9, handlelength=1.2)

    legend_rows = -(-len(names) // 5)
    return draw_svg(name, draw, height=0.75 + BAR_HEIGHT * len(bars) + 0.25 * legend_rows)
