"""Matplotlib figures as SVG that stands inside a page: text stays text, and colours follow the page."""

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

from cram.reporting.pictures.palette import GRID, INK, MUTED, PAPER, SERIES, VARIABLES

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "patch.edgecolor": PAPER,
    "savefig.facecolor": "none",
}


def draw_svg(
    name: str, draw: Callable[[Any, Any], None], width: float = 7.2, height: float = 3.6, **arguments: Any
) -> str:
    """Draw a picture with the looks of the page.

    Args:
        name: unique on its page; it makes the ids inside the SVG unique, and the same each time.
        draw: takes the figure and its axes, and draws.
        width: inches; 7.2 fills a column of the page.
        height: inches.
        arguments: for `pyplot.subplots`.

    Returns:
        An SVG element, with the variables of `VARIABLES` in place of their colours.
    """
    import matplotlib

    matplotlib.use("Agg")
    from cycler import cycler
    from matplotlib import pyplot

    own = {"axes.prop_cycle": cycler(color=list(SERIES)), "svg.hashsalt": name, "svg.id": name}
    settings: Any = SETTINGS | own  # matplotlib asks for a mapping of its own key type
    text = StringIO()
    with matplotlib.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **arguments)
        draw(figure, axes)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        pyplot.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = re.sub(re.escape(color), f"var({variable})", svg, flags=re.IGNORECASE)
    return svg
