import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning.columns import TextColumn
from cram.data.cleaning.symbols import count_digits, count_symbols, count_symbols_and_digits
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


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("#^09 \n٣²€©\u0301\ue000")), max_size=6)
)
def test_many_texts_are_counted_as_each_alone(texts: list[str]) -> None:
    column = TextColumn(texts, split_words)
    counts = list(zip(count_symbols(column).tolist(), count_digits(column).tolist(), strict=True))
    assert counts == list(map(count_symbols_and_digits, texts))


def test_every_character_is_counted_as_alone() -> None:
    texts = ["".join(map(chr, range(start, start + 0x100))) for start in range(0, 0x110000, 0x100) if start >> 11 != 27]
    column = TextColumn(texts, split_words)
    counts = list(zip(count_symbols(column).tolist(), count_digits(column).tolist(), strict=True))
    assert counts == list(map(count_symbols_and_digits, texts))
