import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning.columns import TextColumn
from cram.data.cleaning.symbols import count_symbols_and_digits, have_more_digits, have_more_symbols
from cram.data.cleaning.word_hashes import split_words


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


characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from("#^09 \n٣²€©\u0301\ue000")


def assert_as_each_alone(texts: list[str], share: float) -> None:
    column = TextColumn(texts, split_words)
    found = list(zip(have_more_symbols(share, column).tolist(), have_more_digits(share, column).tolist(), strict=True))
    assert found == [tuple(count > share * len(text) for count in count_symbols_and_digits(text)) for text in texts]


@given(st.lists(st.text(characters), max_size=6), st.sampled_from([0, 0.1, 0.5, 1]))
def test_many_texts_are_judged_as_each_alone(texts: list[str], share: float) -> None:
    assert_as_each_alone(texts, share)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_texts_of_all_characters_are_judged_as_each_alone(share: float) -> None:
    starts = [start for start in range(0, 0x110000, 0x40) if start >> 11 != 27]  # no surrogates
    assert_as_each_alone(["".join(map(chr, range(start, start + 0x40))) for start in starts], share)
