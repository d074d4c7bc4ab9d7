from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.encoding import word_table
from cram.data.encoding.word_table import LONGEST_WORD, WordTable, gather


class Library:
    """Gives each word the codes of its letters as ids, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, words: list[bytes]) -> list[list[int]]:
        self.asked += words
        return [list(word) for word in words]


def looked_up(table: WordTable, words: Iterable[bytes]) -> list[bytes]:
    ids, starts, lengths = table.look_up(list(words))
    return [bytes(ids[start : start + length].tolist()) for start, length in zip(starts, lengths, strict=True)]


some_words = st.lists(st.sampled_from([b"", *(bytes([a]) * n for a in b"abcdef" for n in (1, 3, 70))]), unique=True)


@given(st.integers(1, 12), st.lists(some_words, max_size=8))
def test_every_word_has_its_ids_and_memory_is_bounded(capacity: int, rounds: list[list[bytes]]) -> None:
    table = WordTable(capacity, Library())
    for words in rounds:
        assert looked_up(table, words) == words
        assert len(table) <= capacity + 2 * max(map(len, rounds))


def test_a_known_word_is_not_asked_for_again() -> None:
    library = Library()
    table = WordTable(100, library)
    for words in ([b"one", b"two"], [b"two", b"three"], [b"one", b"three"]):
        assert looked_up(table, words) == words
    assert library.asked == [b"one", b"two", b"three"] and table.encoded == 3


def test_words_that_come_again_outlive_two_generations() -> None:
    library = Library()
    table = WordTable(20, library)
    for number in range(50):
        looked_up(table, [b"often", *(b"%d-%d" % (number, i) for i in range(4))])
    assert library.asked.count(b"often") == 1
    assert len(table) <= 30
    looked_up(table, [b"0-0"])
    assert library.asked.count(b"0-0") == 2, "a rare word is forgotten"


def test_long_words_and_many_ids_fill_a_generation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    table = WordTable(20, library)
    long = b"x" * (LONGEST_WORD + 1)
    assert looked_up(table, [long]) == looked_up(table, [long]) == [long]
    assert library.asked == [long, long]
    looked_up(table, [b"kept"])
    monkeypatch.setattr(word_table, "IDS_PER_WORD", 1)
    for word in (b"0123456789", b"9876543210", b"kept"):  # each of the first two fills a generation by its ids
        looked_up(table, [word])
    assert library.asked.count(b"kept") == 2


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=10))
def test_gather(ranges: list[tuple[int, int]]) -> None:
    ids = np.arange(100, 125)
    starts, lengths = (np.array([pair[i] for pair in ranges], np.int64) for i in (0, 1))
    expected = [number for start, length in ranges for number in ids[start : start + length].tolist()]
    assert gather(ids, starts, lengths).tolist() == expected
