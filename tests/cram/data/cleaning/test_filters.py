from dataclasses import fields

import pytest

from cram.config.data import FilterConfig
from cram.data.cleaning.cleaner import Cleaner
from cram.data.cleaning.filters import FILTERS, REASONS, LineFilter
from cram.data.cleaning.symbols import count_symbols_and_digits

PROSE = "The river runs through the old town, and the castle above it was built by a bishop in the year 1204."
LATEX = (
    r"Let $D \subset {\mathbb C}^n$ be a bounded domain with smooth boundary. We prove that $\|T_f\|_{2} \leq C_n$ "
    r"for every holomorphic map $f: D \to D$, where the constant $C_n$ depends on the dimension alone."
)


def reason(text: str, **values: object) -> str | None:
    """Why the text filters drop a text, with some values of `data.filters` other than the default."""
    (judgement,) = Cleaner(FilterConfig(**values)).judge([text])  # type: ignore[arg-type]
    return judgement.reason


def test_filters_are_named_as_their_keys() -> None:
    names = {field.name for field in fields(FilterConfig)} - {"fix_c1_controls"}  # it repairs texts, and drops nothing
    assert sorted(rule.name for rule in FILTERS) == sorted(names)
    assert set(REASONS) == {rule.name for rule in FILTERS if not isinstance(rule, LineFilter)}
    assert all(rule.source for rule in FILTERS)


@pytest.mark.parametrize("count", [0, 9, 10, 20, 21])
def test_lengths_in_words(count: int) -> None:
    text = ", ".join(f"word{chr(97 + number)}" for number in range(count))
    expected = {0: "empty", 9: "min_words", 21: "max_words"}.get(count)
    assert reason(text, min_words=10, max_words=20) == expected
    assert reason(text, min_words=0) == (None if count else "empty")


def test_good_texts_are_kept() -> None:
    for text in (
        PROSE,
        LATEX,
        "Übergröße, naïve façade — „Straße“ … ¿Qué tal? £5, €7 and 30 per cent, said the minister (again).",
        "Река течёт через старый город, а замок над ней построил епископ в тысяча двести четвёртом году.",
        "नदी पुराने शहर से होकर बहती है और उसके ऊपर का महल एक बिशप ने बनवाया था और वह आज भी है",
    ):
        assert reason(text) is None, text


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("symbols", "<td class=x>|one|two|</td>|=|=|{{a}}|{{b}}|<br>*#*~~>> one two three four five six seven eight"),
        (
            "symbols",
            "one two three four five six seven eight nine ten \ufffd\ufffd\ufffd\ufffd\ue000\ue000\x00\x00★★►►",
        ),
        ("digits", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 one two three four"),
        ("digits", "٢٠٢٥ ١٢ ٣٤٥٦ ٧٨٩٠ are a few digits of a script, not all of them"),
    ],
)
def test_symbols_and_digits(expected: str, text: str) -> None:
    assert reason(text) == expected
    assert reason(text, **{expected: None}) is None


def test_shares_are_of_all_characters_and_may_be_reached() -> None:
    text = "one two three four five six seven eight nine ten##########" + "12" * 10
    symbols, digits = count_symbols_and_digits(text)
    assert (symbols, digits) == (10, 20)
    assert reason(text, symbols=10 / len(text), digits=20 / len(text)) is None
    assert reason(text, symbols=9.9 / len(text), digits=1.0) == "symbols"
    assert reason(text, symbols=None, digits=19.9 / len(text)) == "digits"
    assert count_symbols_and_digits("") == (0, 0)
    assert reason("word", min_words=0, symbols=0.0, digits=0.0) is None, "no symbol and no digit is no more than none"


def test_the_first_filter_that_drops_a_document_gives_the_reason() -> None:
    text = "###### 1234567890 " * 100
    order = [("min_words", 200), ("max_words", 99), ("symbols", 0.1), ("digits", 0.2), ("repetition", True)]
    values: dict[str, object] = {
        "min_words": 0,
        "max_words": None,
        "symbols": None,
        "digits": None,
        "repetition": False,
    }
    assert reason(text, **values) is None
    for name, value in reversed(order):
        values[name] = value
        if name == "min_words":
            values["max_words"] = None
        assert reason(text, **values) == name
