"""The colours of pictures: names that the page's style sheet gives a value, for light and for dark."""

# Okabe and Ito 2008, "Color Universal Design", which readers with any kind of colour vision can tell apart. Black and
# yellow are left out, because each vanishes on one of the two backgrounds.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9172ff", "#595876")
# The same on a dark page: lighter, and in the same order of lightness.
DARK_SERIES = ("#4a8fe0", "#ff8a4c", "#2cc295", "#e79bc9", "#f2b632", "#9adcff", "#c0b0ff", "#8d8b97")
# Colours that a picture is drawn with, and the variables of the style sheet that take their place in the SVG.
INK, MUTED, GRID, PAPER = "#111213", "#676869", "#d1d2d3", "#fefdfc"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES)
}


def series_color(index: int) -> str:
    """The colour of a series; they begin again after the last one."""
    return SERIES[index % len(SERIES)]
