"""Charts as `charts.js` reads them, and what stands in their place for readers who do not see them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cram.reporting.page.blocks import Chart, Number, Series
from cram.reporting.page.numbers import format_number, write_numbers
from cram.reporting.page.scripts import escape_json, write_json
from cram.reporting.pictures.palette import SERIES

PLACE_DIGITS, HEIGHT_DIGITS = 8, 6
SHIFT = 3  # of markers and dashes each time that the palette begins again


class Places:
    """The horizontal places of all series of a page. Series with the same places share one list."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def add(self, places: Sequence[float]) -> int:
        """Return the number of a list of places."""
        return self._numbers.setdefault(write_numbers(places, PLACE_DIGITS), len(self._numbers))

    def json(self) -> str:
        """All lists, in order, as JSON."""
        return f"[{','.join(self._numbers)}]"


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a series with its last value.

    Attributes:
        label: of the series.
        color: index into the palette.
        dashes: index into the patterns of `charts.js`, so that a line is known without its colour.
        marker: index into its markers, likewise for points.
        style: a line, points, or both.
        last: its last value as text.
    """

    label: str
    color: int
    dashes: int
    marker: int
    style: str
    last: str


def marker_number(series: Series) -> int:
    """Index into the markers of `charts.js`. Series that share a colour, because the palette began again, differ."""
    again, turn = divmod(series.color, len(SERIES))
    return (turn + SHIFT * again) % len(SERIES)


def dash_number(series: Series) -> int:
    """Index into the patterns of `charts.js`: 0 is a whole line, 1 what `dashed` asks for."""
    number = marker_number(series)
    return 1 if series.dashed else 0 if number == 0 else number + 1


def make_keys(chart: Chart) -> list[Key]:
    """Make the legend of a chart."""
    return [
        Key(
            label=series.label,
            color=series.color % len(SERIES),
            dashes=dash_number(series),
            marker=marker_number(series),
            style=series.style,
            last=format_number(_last(series.y)),
        )
        for series in chart.series
    ]


def write_chart(chart: Chart, places: Places) -> str:
    """Write what `charts.js` needs to draw a chart, as JSON."""
    series = ",".join(_write_series(one, places) for one in chart.series)
    rest = write_json(
        {
            "axes": [{"name": axis.name, "label": axis.label} for axis in chart.axes],
            "marks": [{"label": mark.label, "x": dict(mark.x), "tone": mark.tone} for mark in chart.marks],
            "levels": [{"label": level.label, "y": level.y} for level in chart.levels],
            "log": chart.log_y,
        }
    )
    return f'{rest[:-1]},"series":[{series}]}}'


def describe_chart(chart: Chart) -> str:
    """Say in words what a chart shows: its description, or the last and the extreme values of its series."""
    if chart.description:
        return chart.description
    said = [_describe_series(series) for series in chart.series]
    said += [f"{level.label}: {format_number(level.y)}" for level in chart.levels]
    events = f" {len(chart.marks)} events are marked." if chart.marks else ""
    return f"{chart.y_label}. {'; '.join(said) or 'no values'}.{events}"


def _describe_series(series: Series) -> str:
    values = _finite(series.y)
    if not values:
        return f"{series.label}: no values"
    low, high = format_number(min(values)), format_number(max(values))
    return f"{series.label}: last {format_number(values[-1])}, from {low} to {high}"


def _last(values: Sequence[Number]) -> Number:
    return next(reversed(_finite(values)), None)


def _finite(values: Sequence[Number]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _write_series(series: Series, places: Places) -> str:
    for name, own in series.x.items():
        assert len(own) == len(series.y), f"{series.label}: {len(own)} places on {name}, {len(series.y)} heights"
    start = write_json(
        {
            "label": series.label,
            "color": series.color % len(SERIES),
            "style": series.style,
            "dashes": dash_number(series),
            "marker": marker_number(series),
            "x": {name: places.add(own) for name, own in series.x.items()},
        }
    )
    return f'{start[:-1]},"y":{escape_json(write_numbers(series.y, HEIGHT_DIGITS))}}}'
