import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cram.config.data import FilterConfig
from cram.data.cleaning.cleaner import Cleaner
from cram.data.cleaning.windows_1252 import (
    UNDEFINED,
    contains_c1_controls,
    count_fixed,
    find_first_difference,
    fix_c1_controls,
)

PROSE = "The river runs through the old town, and the castle above it was built by a bishop in the year 1204."
TEXTS = st.text(st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("\x85\x96\x81\r\n a\xa0\xc2")))


def test_each_control_becomes_the_character_of_its_byte() -> None:
    for code in range(0x80, 0xA0):
        if code in UNDEFINED:
            assert fix_c1_controls(chr(code)) == chr(code)
        else:
            assert fix_c1_controls(f"a{chr(code)}b") == b"a%cb".replace(b"%c", bytes([code])).decode("cp1252")
    assert len(UNDEFINED) == 5
    assert fix_c1_controls("\x80\x85\x91\x92\x93\x94\x96\x97") == "€…‘’“”–—"


def test_text_that_was_read_as_latin_1_is_restored() -> None:
    text = "“Wait…” – he said, 5 € for Šárka’s œuvre"
    read = text.encode("cp1252").decode("latin-1")
    assert read != text and fix_c1_controls(read) == text


def test_a_next_line_is_a_line_end_only_after_a_carriage_return() -> None:
    assert fix_c1_controls("oh no\x85he\x85\n\r\x85next") == "oh no…he…\n\r\nnext"


@given(TEXTS)
def test_nothing_but_c1_controls_changes(text: str) -> None:
    fixed = fix_c1_controls(text)
    assert len(fixed) == len(text) and fix_c1_controls(fixed) == fixed
    changed = [place for place in range(len(text)) if fixed[place] != text[place]]
    assert all("\x80" <= text[place] <= "\x9f" for place in changed)
    assert count_fixed(text, fixed) == len(changed)
    assert find_first_difference(text, fixed) == (changed[0] if changed else len(text))
    assert (fixed is text) == (not changed)
    assert all(ord(character) in UNDEFINED for character in fixed if "\x80" <= character <= "\x9f")
    assert contains_c1_controls(text.encode()) == any("\x80" <= character <= "\x9f" for character in text)


def test_the_table_is_no_larger_than_the_controls() -> None:
    assert [unicodedata.category(chr(code)) for code in (0x7F, 0xA0)] == ["Cc", "Zs"]
    assert fix_c1_controls("\x7f\xa0\xadÂ…") == "\x7f\xa0\xadÂ…"


def test_a_cleaner_judges_the_text_with_controls_replaced() -> None:
    text = f"{PROSE} Oh no\x85he \x81fell"
    fixed, plain = Cleaner(FilterConfig()).judge([text, PROSE])
    assert fixed.text == f"{PROSE} Oh no…he \x81fell" and fixed.fixed == 1
    assert fixed.words.words[-4:] == ["oh", "no", "he", "fell"]
    assert plain.text is PROSE and plain.fixed == 0
    assert Cleaner(FilterConfig()).clean(text) == fixed.text
    (exempt,) = Cleaner(FilterConfig()).judge([text], exempt={0})
    assert (exempt.text, exempt.fixed) == (fixed.text, 1)


def test_the_key_switches_it_off() -> None:
    text = f"{PROSE} Oh no\x85he"
    cleaner = Cleaner(FilterConfig(fix_c1_controls=False))
    (judgement,) = cleaner.judge([text])
    assert judgement.text is text and judgement.fixed == 0 and cleaner.clean(text) is text


def test_controls_in_lines_that_are_cut_are_counted() -> None:
    (judgement,) = Cleaner(FilterConfig()).judge([f"We use cookies\x85 to improve your experience.\n{PROSE} \x96"])
    assert judgement.text == f"{PROSE} –" and judgement.fixed == 2
