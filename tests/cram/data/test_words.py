import itertools
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cram.data.words import hash_words, ngram_hashes, split_words

BREAKS = "\n\r\t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000 "
texts = st.text() | st.text(st.sampled_from("aBz_09.,'-" + "éİßΣ中²" + BREAKS))
hashes = st.lists(st.integers(0, 2**64 - 1), max_size=40).map(lambda values: np.array(values, np.uint64))
FACTOR = 0x9E3779B97F4A7C15


@given(texts)
def test_words_are_runs_of_word_characters(text: str) -> None:
    assert split_words(text) == re.findall(r"\w+", text.lower())


def test_case_and_punctuation_make_no_difference() -> None:
    assert split_words("The film's_end,\r\n in 1999 — ÉTÉ!") == ["the", "film", "s_end", "in", "1999", "été"]


@given(st.lists(st.lists(st.text(min_size=1, max_size=3), max_size=6), max_size=6))
def test_equal_words_have_equal_hashes_wherever_they_stand(lists: list[list[str]]) -> None:
    found = hash_words(lists)
    assert [words.words for words in found] == lists
    assert all(words.hashes.dtype == np.uint64 and len(words.hashes) == len(words.words) for words in found)
    pairs = {(word, int(value)) for words in found for word, value in zip(words.words, words.hashes, strict=True)}
    assert len(pairs) == len({word for word, _ in pairs}) == len({value for _, value in pairs})


def test_the_hashes_are_the_same_for_ever() -> None:
    assert hash_words([["a", "b"]])[0].hashes.tolist() == [13658995902763642704, 2364374680545691012]


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
def test_ngrams_are_equal_where_their_words_are(words: list[str], n: int) -> None:
    found = ngram_hashes(hash_words([words])[0].hashes, n).tolist()
    windows = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    assert len(found) == len(windows)
    assert len(set(zip(windows, found, strict=True))) == len(set(windows)) == len(set(found))


def test_every_bit_of_an_ngram_depends_on_the_order_of_its_words() -> None:
    words = hash_words([[str(number) for number in range(6)]])[0].hashes
    orders = np.array([ngram_hashes(np.array(order), 6)[0] for order in itertools.permutations(words)])
    bits = (orders[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert (np.abs(bits.mean(axis=0) - 0.5) < 5 * 0.5 / np.sqrt(len(orders))).all()
