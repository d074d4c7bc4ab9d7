import itertools
import pickle
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning import word_hashes as words
from cram.data.cleaning.word_hashes import (
    WordSplitter,
    hash_words,
    look_up,
    ngram_hashes,
    serialize_normalizer,
    split_words,
)
from proofs.columns import make_words
from tests.cram.data.cleaning.plain_words import NORMALIZERS, SPLITTERS

BREAKS = "\n\r\t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000 "
texts = st.text() | st.text(st.sampled_from("aBz_09.,'-" + "éİßΣ中²\u0301\u00ad\u200b" + BREAKS))
hashes = st.lists(st.integers(0, 2**64 - 1), max_size=40).map(lambda values: np.array(values, np.uint64))
FACTOR = 0x9E3779B97F4A7C15


MARKS = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) in ("Mn", "Mc", "Cf")]
splitters = st.sampled_from(SPLITTERS)
SENTENCE = (
    "The café's naïve owner finds Zoë's o\ufb03ce: a flat of 12 m², ẞüß, İstanbul, Ελλάς, Москва, 한국어, がく, हिन्दी."
)


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_runs_of_letters_and_digits(text: str) -> None:
    assert split_words(text) == re.findall(r"[^\W_]+", text.lower())


@given(texts, splitters)
def test_texts_with_the_same_runs_of_word_characters_have_the_same_letters(text: str, split: WordSplitter) -> None:
    again = " - ".join(re.findall(r"\w+", text.lower())).upper()
    if re.findall(r"\w+", again.lower()) == re.findall(r"\w+", text.lower()):
        assert "".join(split(again)) == "".join(split(text))


@given(texts, splitters, st.data())
def test_marks_and_format_characters_make_no_difference(text: str, split: WordSplitter, data: st.DataObject) -> None:
    place, mark = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from(MARKS))
    assert split(text[:place] + mark + text[place:]) == split(text)


@given(texts, splitters, st.sampled_from(["NFC", "NFD"]))
def test_a_form_that_looks_the_same_has_the_same_words(text: str, split: WordSplitter, form: Any) -> None:
    assert split(unicodedata.normalize(form, text)) == split(text)


TWINS: dict[str, Callable[[str], str]] = {
    "soft hyphens": "\u00ad".join,
    "zero-width spaces": "\u200b".join,
    "zero-width joiners": "\u200d".join,
    "word joiners": "\u2060".join,
    "marks of direction": lambda text: "\u200e" + "\u202c".join(text) + "\ufeff",
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "NFKC": lambda text: unicodedata.normalize("NFKC", text),
    "NFKD": lambda text: unicodedata.normalize("NFKD", text),
    "accents left out": lambda text: "".join(
        c for c in unicodedata.normalize("NFD", text) if c.isalnum() or c in " .,"
    ),
    "upper case": str.upper,
    "folded case": str.casefold,
    "ligatures": lambda text: text.replace("\ufb03", "ffi").replace("fl", "\ufb02"),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "white space": lambda text: text.replace(" ", "\u00a0\u2028\t\n "),
}


@pytest.mark.parametrize("split", SPLITTERS, ids=range(len(SPLITTERS)))
@pytest.mark.parametrize("name", TWINS)
def test_the_same_sentence_written_otherwise(name: str, split: WordSplitter) -> None:
    twin = TWINS[name](SENTENCE)
    assert twin != SENTENCE and "".join(split(twin)) == "".join(split(SENTENCE))


def test_words_of_several_scripts() -> None:
    expected = "the cafe s naive owner finds zoe s office a flat of 12 m2 ssuss istanbul ελλασ москва"
    assert split_words(SENTENCE)[:18] == expected.split()
    assert WordSplitter(serialize_normalizer(NORMALIZERS[3]))(SENTENCE) == expected.split()[:-2]  # only ASCII is left
    assert SPLITTERS[-1]("12 km") == ["one2", "km"]
    assert split_words("snake_case, __x__") == ["snake", "case", "x"]


def test_a_splitter_goes_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    split = WordSplitter(serialize_normalizer(NORMALIZERS[3]))
    expected = split(SENTENCE)
    monkeypatch.setattr(words, "_MOST_FORMS", 2)
    again = pickle.loads(pickle.dumps(split))
    assert again(SENTENCE) == again(SENTENCE) == expected


@given(st.lists(st.lists(st.text(min_size=1, max_size=3), max_size=6), max_size=6))
def test_equal_words_have_equal_hashes_wherever_they_stand(lists: list[list[str]]) -> None:
    found = [hash_words([word.encode() for word in words]) for words in lists]
    assert all(hashes.dtype == np.uint64 for hashes in found)
    pairs = {
        (word, int(value))
        for words, hashes in zip(lists, found, strict=True)
        for word, value in zip(words, hashes, strict=True)
    }
    assert len(pairs) == len({word for word, _ in pairs}) == len({value for _, value in pairs})


def test_the_hashes_are_the_same_for_ever() -> None:
    assert hash_words([b"a", b"b"]).tolist() == [13658995902763642704, 2364374680545691012]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), max_size=9))
def test_words_are_cut_out_of_their_letters(words: list[str]) -> None:
    (found,) = make_words([words])
    assert found.words == words
    assert len(found) == len(words)


def mixed(window: list[int]) -> int:
    value = sum(number * FACTOR**power for power, number in enumerate(window, start=1)) % 2**64
    value ^= value >> 32
    value = value * FACTOR % 2**64
    return value ^ value >> 29


@given(hashes, st.integers(1, 14), st.integers(1, 9))
def test_ngrams_against_integers(values: np.ndarray, n: int, step: int) -> None:
    windows = [values[start : start + n].tolist() for start in range(0, len(values) - n + 1, step)]
    before = values.copy()
    found = ngram_hashes(values, n, step)
    assert found.dtype == np.uint64
    assert found.tolist() == [mixed(window) for window in windows]
    assert (values == before).all()


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 6))
def test_ngrams_are_equal_if_their_words_are(words: list[str], n: int) -> None:
    found = ngram_hashes(hash_words([word.encode() for word in words]), n).tolist()
    windows = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    assert len(found) == len(windows)
    assert len(set(zip(windows, found, strict=True))) == len(set(windows)) == len(set(found))


def test_every_bit_of_an_ngram_depends_on_the_order_of_its_words() -> None:
    words = hash_words([str(number).encode() for number in range(6)])
    orders = np.array([ngram_hashes(np.array(order), 6)[0] for order in itertools.permutations(words)])
    bits = (orders[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert (np.abs(bits.mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(len(orders))).all()


@given(st.lists(st.integers(0, 9), max_size=8), st.sets(st.integers(0, 9)))
def test_hashes_are_looked_up_among_sorted_ones(hashes: list[int], others: set[int]) -> None:
    ordered = np.array(sorted(others), np.uint64)
    found, places = look_up(np.array(hashes, np.uint64), ordered)
    assert found.tolist() == [number in others for number in hashes]
    assert all(ordered[place] == number for number, place in zip(np.array(hashes)[found], places[found], strict=True))
