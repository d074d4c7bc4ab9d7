"""A chart of a page as a PNG picture, for places that run no scripts: a model card, or a viewer of images."""

import math
from io import BytesIO
from typing import Any

from cram.reporting.page.blocks import Axis, Chart, Mark, Series
from cram.reporting.pictures.palette import MUTED, PAPER, series_color
from cram.reporting.pictures.svg import SETTINGS

STYLES = {"line": ("-", ""), "points": ("", "o"), "both": ("-", "o")}  # matplotlib's words for line and marker
MARK_COLORS = {"bad": series_color(3)}  # by tone; the others are muted
MARK_LINES = (":", "-.", (0, (1, 4)))  # of one kind of mark after the other
LONGEST_LABEL = 48  # characters of a legend's line


def draw_still(chart: Chart, title: str) -> bytes:
    """Draw a chart over its first axis.

    Args:
        chart: of a page.
        title: of the picture.

    Returns:
        The PNG file, the same for the same chart.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings: Any = SETTINGS | {"savefig.facecolor": PAPER}  # viewers of images may be dark
    picture = BytesIO()
    with matplotlib.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        _draw(axes, chart, chart.axes[0])
        axes.set_title(title, parse_math=False)
        axes.legend()
        figure.savefig(picture, dpi=130, format="png", metadata={"Software": None})
        pyplot.close(figure)
    return picture.getvalue()


def _draw(axes: Any, chart: Chart, axis: Axis) -> None:
    last = max((series.x[axis.name][-1] for series in chart.series if series.x[axis.name]), default=0.0)
    scale, label = _scale(axis, last)
    for series in chart.series:
        line, marker = STYLES[series.style]
        axes.plot(
            [place / scale for place in series.x[axis.name]],
            [math.nan if height is None else height for height in series.y],
            linestyle="--" if series.dashed and line else line,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            color=series_color(series.color),
            label=_name(series),
        )
    _draw_marks(axes, chart.marks, axis, scale)
    for level in chart.levels:
        axes.axhline(level.y, color=MUTED, linestyle="--", linewidth=1.0, label=level.label)
    axes.set(xlabel=label, ylabel=chart.y_label, yscale="log" if chart.log_y else "linear")
    axes.set_xlim(left=0)


def _name(series: Series) -> str:
    """The label of a series in the legend; that of single points tells the last of them."""
    last = series.y[-1] if series.y else None
    return series.label if series.style == "line" or last is None else f"{series.label} ({last:.4g})"


def _draw_marks(axes: Any, marks: Any, axis: Axis, scale: float) -> None:
    """Draw events as vertical lines; the first one of a kind stands in the legend."""
    kinds: dict[str, Mark] = {}
    for mark in marks:
        kind = mark.label.partition(":")[0][:LONGEST_LABEL]
        axes.axvline(
            mark.x[axis.name] / scale,
            color=MARK_COLORS.get(mark.tone, MUTED),
            linewidth=0.9,
            linestyle=MARK_LINES[list({**kinds, kind: mark}).index(kind) % len(MARK_LINES)],
            label=None if kind in kinds else kind,
        )
        kinds.setdefault(kind, mark)


def _scale(axis: Axis, last: float) -> tuple[float, str]:
    """What places are divided by, and the label of the axis with the unit that this gives."""
    label, comma, unit = axis.label.rpartition(", ")
    if not comma or unit != "s":
        return 1.0, axis.label
    scale, unit = (1.0, "s") if last < 300 else (60.0, "min") if last < 7200 else (3600.0, "h")
    return scale, f"{label}, {unit}"
