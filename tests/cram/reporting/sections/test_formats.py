"""Numbers as text."""

from collections.abc import Callable
from typing import Any

import pytest

from cram.reporting.sections.formats import (
    format_bytes,
    format_fixed,
    format_flops,
    format_large,
    format_seconds,
    format_share,
    format_whole,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_fixed(4.83656), "4.837"),
        (format_fixed(1234.5, 1), "1,234.5"),
        (format_whole(35260.9), "35,261"),
        (format_share(0.1926), "19.3%"),
        (format_share(0.00106, 2), "0.11%"),
        (format_seconds(0.2), "0.20 s"),
        (format_seconds(75.094), "75.1 s"),
        (format_seconds(9.99), "9.99 s"),
        (format_seconds(10), "10.0 s"),
        (format_seconds(119.9), "119.9 s"),
        (format_seconds(120), "2:00"),
        (format_seconds(125), "2:05"),
        (format_seconds(3725), "1:02:05"),
        (format_bytes(1_440_968_704), "1.44 GB"),
        (format_bytes(512), "512 B"),
        (format_bytes(999_999), "1 MB"),
        (format_flops(1.963e12), "1.96 TFLOP"),
        (format_large(2_494_464), "2.49 M"),
        (format_large(9_999), "9,999"),
        (format_whole(10**400), "–"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize("format_number", [format_fixed, format_whole, format_share, format_seconds, format_bytes])
@pytest.mark.parametrize("value", [None, "7", True])
def test_what_is_not_a_number_is_a_dash(format_number: Callable[[Any], str], value: Any) -> None:
    assert format_number(value) == "–"
