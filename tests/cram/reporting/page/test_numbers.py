import math

import pytest

from cram.reporting.page.numbers import format_number, write_numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.14159, "3.142"),
        (-0.5, "-0.5"),
        (999.96, "1000"),
        (12345.6, "12,346"),
        (1234567, "1.235M"),
        (2.5e9, "2.5B"),
        (0.000025, "2.5e-5"),
        (3.2e18, "3.2e18"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_missing_numbers_are_null() -> None:
    assert write_numbers([1.23456789, None, math.nan, -math.inf, 1e9, 3], 4) == "[1.235,null,null,null,1e+09,3]"
