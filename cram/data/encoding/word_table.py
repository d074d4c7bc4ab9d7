"""The ids of known words, in bounded memory."""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", bound=np.integer)
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

LONGEST_WORD = 64  # bytes; longer words, such as a sentence without spaces, seldom come again and are not remembered
IDS_PER_WORD = 8  # on average at most; a table with more ids counts as full


class WordTable:
    """Remembers the ids of words, and asks the tokenizer for those of others.

    Words are kept in two generations. When the young one is full it takes the place of the old one, which is
    forgotten, and a new one begins. A word of the old generation that is seen again moves to the young one, so only
    words are forgotten that were not seen while a generation filled.

    Args:
        capacity: how many words are remembered, of both generations together.
        encode: returns the ids of each of some words.

    Attributes:
        occurrences: words of texts that were looked up so far, each as often as it occurs.
        encoded: words that the tokenizer was asked for.
    """

    def __init__(self, capacity: int, encode: Callable[[list[bytes]], list[list[int]]]) -> None:
        self._most = max(1, capacity // 2)
        self._encode = encode
        self._young = _Generation()
        self._old = _Generation()
        self.occurrences = self.encoded = 0

    def __len__(self) -> int:
        """Return how many words are remembered."""
        return len(self._young.rows.keys() | self._old.rows.keys())

    def look_up(self, words: list[bytes]) -> tuple[Ids, Offsets, Offsets]:
        """Return the ids of some words.

        Args:
            words: in UTF-8, all different.

        Returns:
            Ids, int32; and for each word where its ids begin and how many there are, both int64 [words]. They are valid
            until the next call.
        """
        if max(self._young.words, self._young.size // IDS_PER_WORD) >= self._most:
            self._old, self._young = self._young, _Generation()
        young = self._young
        rows = young.find(words)
        (missing,) = np.nonzero(rows < 0)
        if len(missing):
            rows[missing] = self._admit([words[i] for i in missing.tolist()])
        return young.ids, young.starts[rows], young.lengths[rows]

    def _admit(self, words: list[bytes]) -> Offsets:
        """Put words into the young generation, from the old one or from the tokenizer; return their rows."""
        rows = np.empty(len(words), np.int64)
        old_rows = self._old.find(words)
        is_old = old_rows >= 0
        known, unknown = np.flatnonzero(is_old), np.flatnonzero(~is_old)
        if len(known):
            ids, lengths = self._old.take(old_rows[known])
            rows[known] = self._young.add([words[i] for i in known.tolist()], ids, lengths)
        if len(unknown):
            new = [words[i] for i in unknown.tolist()]
            encoded = self._encode(new)
            lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
            ids = np.array([number for one in encoded for number in one], np.int32)
            rows[unknown] = self._young.add(new, ids, lengths)
            self.encoded += len(new)
        return rows


class _Generation:
    """Words with their ids.

    Attributes:
        rows: the row of each word that is remembered.
        words: rows in use; more than the words of `rows` if some are too long to be remembered.
        size: ids in use.
        ids: int32 [at least size], the ids of all rows one after the other.
        starts: int64 [at least words], where the ids of a row begin.
        lengths: int64 [at least words], how many they are.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = {}
        self.words = self.size = 0
        self.ids: Ids = np.empty(1024, np.int32)
        self.starts: Offsets = np.empty(1024, np.int64)
        self.lengths: Offsets = np.empty(1024, np.int64)

    def find(self, words: Sequence[bytes]) -> Offsets:
        """Return the row of each word, or -1."""
        if not self.rows:
            return np.full(len(words), -1)
        return np.fromiter(map(self.rows.get, words, repeat(-1)), np.int64, len(words))

    def take(self, rows: Offsets) -> tuple[Ids, Offsets]:
        """Return the ids of some rows one after the other, and how many each has."""
        lengths = self.lengths[rows]
        return gather(self.ids, self.starts[rows], lengths), lengths

    def add(self, words: list[bytes], ids: Ids, lengths: Offsets) -> Offsets:
        """Add words that are not here yet; return their rows."""
        rows = np.arange(self.words, self.words + len(words))
        self.ids = _append(self.ids, self.size, ids)
        self.starts = _append(self.starts, self.words, self.size + np.cumsum(lengths) - lengths)
        self.lengths = _append(self.lengths, self.words, lengths)
        self.rows.update(
            (word, row) for word, row in zip(words, rows.tolist(), strict=True) if len(word) <= LONGEST_WORD
        )
        self.words += len(words)
        self.size += len(ids)
        return rows


def gather(ids: npt.NDArray[Number], starts: Offsets, lengths: Offsets) -> npt.NDArray[Number]:
    """Return each `ids[start : start + length]`, one after the other."""
    ends = np.cumsum(lengths)
    places = np.repeat(starts - (ends - lengths), lengths)
    places += np.arange(len(places))
    return np.take(ids, places)


def _append(array: npt.NDArray[Number], used: int, values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Write values behind the used part of an array; return the array, or a larger one that begins the same."""
    needed = used + len(values)
    if needed > len(array):
        larger = np.empty(max(needed, 2 * len(array)), array.dtype)
        larger[:used] = array[:used]
        array = larger
    array[used:needed] = values
    return array
