"""Matplotlib figures as SVG that stands inside a page: text stays text, and colours follow the page."""

import re
import warnings
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
        name: unique on its page; it makes the ids inside of the SVG unique, and the same each time.
        draw: takes the figure and its axes, and draws.
        width: inches; 7.2 are 690 of the 960 pixels of a section, and 4 fit half of it.
        height: inches.
        arguments: for `Figure.subplots`.

    Returns:
        An SVG element, with the variables of `VARIABLES` in place of their colours.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # `pyplot`, which chooses a window system, takes half a second more
    from matplotlib.rcsetup import cycler

    own = {"axes.prop_cycle": cycler(color=list(SERIES)), "svg.hashsalt": replace_half_pairs(name)}
    settings: Any = SETTINGS | own  # matplotlib asks for a mapping of its own key type
    text = StringIO()
    with rc_context(settings), warnings.catch_warnings():
        # Text stays text: the reader's fonts draw what matplotlib's own font lacks.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure, figure.subplots(**arguments))
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return adapt_svg(text.getvalue())


def replace_half_pairs(text: str) -> str:
    """Replace half surrogate pairs, which stand for the bytes of a path that is not UTF-8: matplotlib refuses them."""
    return text.encode("utf-8", "replace").decode()


def adapt_svg(text: str) -> str:
    """Make the SVG file of a matplotlib figure an element that stands beside others in one page.

    Its size gives way to the page's, its font is the page's, and its colours are variables. Ids that nothing refers to
    go, since they count from 1 in every figure (`axes_1`), and so does a style that would hold for the whole page.
    """
    svg = text[text.index("<svg") :]
    referred = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referred else "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'width="([\d.]+)pt" height="[\d.]+pt"', r'style="--width: \1pt"', svg, count=1)
    svg = re.sub(r"(?<=[\";]) *font-family: [^;\"]*;?", "", svg)
    for color, variable in VARIABLES.items():
        svg = re.sub(re.escape(color), f"var({variable})", svg, flags=re.IGNORECASE)
    return svg
