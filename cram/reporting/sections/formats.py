"""Numbers of sections as text: sensible digits, with their units, and a dash for what is missing."""

import sys
from typing import Any, TypeGuard

from cram.terminal.progress import format_duration

ABSENT = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number. JSON has null where one was not finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def format_fixed(value: Any, digits: int = 3) -> str:
    """Write a number with so many digits behind the point: `4.837`."""
    return f"{value:,.{digits}f}" if is_number(value) else ABSENT


def format_whole(value: Any) -> str:
    """Write a number without digits behind the point: `35,261`."""
    return f"{value:,.0f}" if is_number(value) else ABSENT


def format_share(value: Any, digits: int = 1) -> str:
    """Write a share as `19.3%`."""
    return f"{value:.{digits}%}" if is_number(value) else ABSENT


def format_seconds(value: Any) -> str:
    """Write a time as `75.1 s`, and from two minutes on as `2:05` or `1:02:05`."""
    if not is_number(value):
        return ABSENT
    return format_duration(value) if value >= 120 else f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def format_bytes(value: Any) -> str:
    """Write a size in the unit that suits it: `1.44 GB`."""
    return _with_prefix(value, "B")


def format_flops(value: Any) -> str:
    """Write a number of floating-point operations in the unit that suits it: `1.96 TFLOP`."""
    return _with_prefix(value, "FLOP")


def format_large(value: Any) -> str:
    """Write a number as `2.49 M`, or whole below ten thousand."""
    return format_whole(value) if is_number(value) and abs(value) < 1e4 else _with_prefix(value, "").rstrip()


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 sample`, `8 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _with_prefix(value: Any, unit: str) -> str:
    if not is_number(value):
        return ABSENT
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:,.0f} {unit}"
