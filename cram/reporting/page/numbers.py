"""Numbers as text, with the digits that a reader needs. `numbers.js` writes them in the same way."""

import math
from collections.abc import Iterable

from cram.reporting.page.blocks import Number

ABSENT = "–"
_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def format_number(value: Number) -> str:
    """Write a number with four digits: `3.142`, `12,346`, `1.235M`, `2.5e-05`. A dash for one that is missing."""
    if value is None or not math.isfinite(value):
        return ABSENT
    size = abs(value)
    if size != 0 and not 1e-3 <= size < 1e15:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if size < 1000:
        return f"{value:.4g}"
    if size < 1e5:
        return f"{value:,.0f}"
    unit, suffix = next((unit, suffix) for unit, suffix in _SUFFIXES if size >= unit)
    return f"{value / unit:.4g}{suffix}"


def write_numbers(values: Iterable[Number], digits: int) -> str:
    """Write a JSON list of numbers with so many digits at most; null for what is missing or not finite."""
    return "[" + ",".join("null" if v is None or not math.isfinite(v) else f"{v:.{digits}g}" for v in values) + "]"
