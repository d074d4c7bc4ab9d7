"""The picture of GLUE scores: every seed, the median, controls and published scores."""

import warnings
from collections.abc import Mapping
from typing import Any

from cram.data.inspect.figures import printable
from cram.reporting.page.blocks import Picture
from cram.reporting.pictures.palette import INK, MUTED, series_color
from cram.reporting.pictures.svg import draw_svg
from cram.reporting.reading.glue import GlueData
from cram.reporting.sections.documents import shorten

LONGEST_NAME = 24  # characters of a score's name
PUBLISHED_MARKERS = ("D", "s", "^", "v")  # of the rows of published scores
SPREAD = 0.16  # vertical distance of the seeds' points from the line of their score, which keeps them apart


def draw_scores(glue: GlueData) -> Picture:
    """Draw the scores one below the other, in percent."""
    conclusions = glue.conclusions
    published = {name: row for name, row in (conclusions.published if conclusions else {}).items() if len(row) > 1}
    controls = {"majority class": conclusions.majority, "untrained": conclusions.untrained} if conclusions else {}

    def draw(figure: Any, axes: Any) -> None:
        for number, (name, row) in enumerate(published.items()):
            marker = PUBLISHED_MARKERS[number % len(PUBLISHED_MARKERS)]
            color = series_color(number + 1)
            _points(axes, glue, row, _plain(name), marker=marker, color=color, fillstyle="none")
        for (name, row), marker in zip(controls.items(), ("x", "+"), strict=False):
            _points(axes, glue, row, name, marker=marker, color=MUTED)
        for place, score in enumerate(glue.scores):
            values = [*score.seeds.values()]
            shifts = [SPREAD * (2 * (number % 2) - 1) for number in range(len(values))]
            label = "each seed" if place == 0 else None
            axes.plot(
                values, [place + shift for shift in shifts], "o", color=series_color(0), markersize=4, label=label
            )
            median = "median" if place == 0 else None
            axes.plot([score.median] * 2, [place - 0.32, place + 0.32], color=INK, linewidth=2.2, label=median)
        names = [shorten(printable(score.name), LONGEST_NAME) for score in glue.scores]
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel("dev score, %")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=3)

    with warnings.catch_warnings():
        # The reader's own fonts draw the text, also a character that the measuring font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        svg = draw_svg(f"glue-{glue.name}", draw, height=1.5 + 0.42 * len(glue.scores))
    medians = ", ".join(f"{printable(score.name)} {score.median:.1f}" for score in glue.scores)
    return Picture("Every seed beside controls and published scores", svg, f"Median dev scores in percent: {medians}.")


def _points(axes: Any, glue: GlueData, row: Mapping[str, float], label: str, **style: Any) -> None:
    places = [(row[score.name], place) for place, score in enumerate(glue.scores) if score.name in row]
    if places:
        values, heights = zip(*places, strict=True)
        axes.plot(values, heights, linestyle="none", markersize=7, label=label, **style)


def _plain(label: str) -> str:
    """A label that is not read as a formula."""
    return shorten(printable(label), LONGEST_NAME).replace("$", r"\$")
