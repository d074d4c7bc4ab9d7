"""A chart as a picture: its curves, the unit of its time, and a legend that names each kind of event once."""

from typing import Any

import pytest

from cram.reporting.page.blocks import Axis, Chart, Level, Mark, Series
from cram.reporting.page.still import draw_still

TIME = Axis("seconds", "time charged to the budget, s")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn during the test."""
    from matplotlib import pyplot

    drawn: list[Any] = []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", lambda figure: (drawn.append(figure), close(figure)))
    return drawn


def make_chart(seconds: float) -> Chart:
    """Two curves, one with a gap, four events and a baseline."""
    places = {"seconds": [seconds / 2, seconds], "updates": [1, 2]}
    events = [("spike: loss 7.0", "bad"), ("spike: loss 9.0", "bad"), ("resumed", "note"), ("phase: masks", "note")]
    return Chart(
        title="Loss",
        axes=[TIME, Axis("updates", "updates")],
        series=[Series("training", places, [8.0, None]), Series("held-out", places, [6.0, 5.5], "both", color=1)],
        y_label="nats",
        marks=[Mark(label, {"seconds": seconds / 4}, tone) for label, tone in events],  # type: ignore[arg-type]
        levels=[Level("unigram baseline", 7.0)],
    )


@pytest.mark.parametrize(("seconds", "scale", "unit"), [(60, 1, "s"), (600, 60, "min"), (86400, 3600, "h")])
def test_curves_events_and_levels_are_drawn_over_the_first_axis(
    figures: list[Any], seconds: float, scale: float, unit: str
) -> None:
    picture = draw_still(make_chart(seconds), "a $run^2")
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    (axes,) = figures[0].axes
    training, held_out, *events, level = axes.lines
    assert list(training.get_xdata()) == [seconds / 2 / scale, seconds / scale]
    assert [str(height) for height in training.get_ydata()] == ["8.0", "nan"]
    assert list(held_out.get_ydata()) == [6.0, 5.5]
    assert [line.get_xdata()[0] for line in events] == [seconds / 4 / scale] * 4
    assert events[0].get_linestyle() == events[1].get_linestyle()
    assert len({str(line.get_linestyle()) for line in events[1:]}) == 3
    assert list(level.get_ydata()) == [7.0, 7.0]
    assert (axes.get_xlabel(), axes.get_title()) == (f"time charged to the budget, {unit}", "a $run^2")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training",
        "held-out (5.5)",
        "spike",
        "resumed",
        "phase",
        "unigram baseline",
    ]


def test_equal_charts_give_equal_bytes() -> None:
    assert draw_still(make_chart(60.0), "one") == draw_still(make_chart(60.0), "one")
