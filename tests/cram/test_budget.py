"""Budgets and durations as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.budget import Budget, parse_duration
from cram.errors import CramError


@pytest.mark.parametrize(
    ("text", "clock", "limit"),
    [
        ("90s", "wall", 90),
        ("10m", "wall", 600),
        ("1.5h", "wall", 5400),
        ("24h", "wall", 86400),
        ("2.5e9tokens", "tokens", 2.5e9),
        ("5000steps", "steps", 5000),
        (" 1d ", "wall", 86400),
        ("rst:24h", "rst", 86400),
    ],
)
def test_budgets_are_read(text: str, clock: str, limit: float) -> None:
    assert Budget.parse(text) == Budget(clock, limit)


@pytest.mark.parametrize(
    "text",
    [
        "0s",
        "-1h",
        "10 parsecs",
        "",
        "h",
        "1e999s",
        "0steps",
        "0.5steps",
        "5 000steps",
        "nans",
        "10",
        "rst:",
        "rst:5steps",
    ],
)
def test_other_budgets_are_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(CramError, match=r"^budget=.*90s, 10m or 24h"):
        Budget.parse(text)


@given(st.integers(1, 10**12))
def test_every_count_and_duration_is_read_back(number: int) -> None:
    assert Budget.parse(f"{number}steps").limit == number
    assert Budget.parse(f"{number}tokens").limit == number
    assert Budget.parse(f"{number}m").limit == 60 * number


@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_cram_error(text: str) -> None:
    try:
        assert Budget.parse(text).limit > 0
    except CramError as error:
        assert not text.isprintable() or text[:600] in str(error)  # what cannot be printed is shown as an escape


def test_durations_name_their_key() -> None:
    with pytest.raises(CramError, match=r"checkpoint\.interval=soon"):
        parse_duration("soon", "checkpoint.interval")


@pytest.mark.parametrize("text", ["90s", "10m", "24h", "2.5e9tokens", "5000steps", "0.5s", "1e13tokens"])
def test_a_budget_in_words_is_read_back(text: str) -> None:
    budget = Budget.parse(text)
    assert Budget.parse(budget.words()) == budget
