import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning.symbols import count_symbols_and_digits


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_symbols_and_digits_are_those_counted_one_by_one(text: str) -> None:
    symbols = sum(
        character in "#*+<=>@\\^_`{|}~"
        if 32 <= ord(character) < 127
        else unicodedata.category(character) in ("Sm", "Sk", "So", "Cc", "Co", "Cn") and not character.isspace()
        for character in text
    )
    digits = sum(unicodedata.category(character) == "Nd" for character in text)
    assert count_symbols_and_digits(text) == (symbols, digits)
