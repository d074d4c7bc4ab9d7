"""Texts as columns: the bytes and words of many texts in a few long arrays, for work on all of them at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, Words, WordSplitter, hash_words
from cram.data.text.document import byte_size

Mask: TypeAlias = npt.NDArray[np.bool_]
Counts: TypeAlias = npt.NDArray[np.int64]

_ASCII = bytes(range(128))
_BEGINS_CHARACTER = bytes(code >= 0xC0 for code in range(256))  # one beyond ASCII
_BREAKS = bytes(code for code in _ASCII if not chr(code).isalnum())  # they end a word
_IN_WORD = bytes(code not in _BREAKS for code in range(256))
_LOWER = bytes(range(256)).lower()  # of ASCII letters; other bytes stay


class TextColumn:
    """Some texts, and their bytes one after the other.

    Args:
        texts: to be looked at together, about one chunk of documents.
        split: makes their words.

    Attributes:
        texts: as given.
        data: the texts in UTF-8, with a line feed before each and after the last.
        starts: int64 [texts + 1], where each text begins in `data`, and at last where one more would.
    """

    def __init__(self, texts: Sequence[str], split: WordSplitter) -> None:
        self.texts = texts
        self.data = "\n".join(["", *texts, ""]).encode()
        self.starts = np.ones(len(texts) + 1, np.int64)
        sizes = np.fromiter(map(len if self.data.isascii() else byte_size, texts), np.int64, len(texts))
        np.cumsum(sizes + 1, out=self.starts[1:])
        self.starts[1:] += 1
        self._split = split

    @cached_property
    def characters(self) -> Counts:
        """The length of each text in characters: int64 [texts]."""
        return np.fromiter(map(len, self.texts), np.int64, len(self.texts))

    @cached_property
    def words(self) -> "WordColumn":
        """The folded words of the texts, computed when they are first asked for."""
        return _split_column(self, self._split)

    @cached_property
    def beyond_ascii(self) -> tuple[npt.NDArray[np.uint32], Counts]:
        """The characters beyond ASCII: their codes, uint32 [n], and the index of the text of each, int64 [n]."""
        if self.data.isascii():
            return np.empty(0, np.uint32), np.empty(0, np.int64)
        codes = np.frombuffer(self.data.translate(None, _ASCII).decode().encode("utf-32-le"), "<u4")
        places = np.flatnonzero(_look_up_bytes(self.data, _BEGINS_CHARACTER))
        return codes, np.searchsorted(self.starts, places, side="right") - 1

    def count(self, table: bytes) -> Counts:
        """Count the bytes of each text for which `table`, of 256 bytes, has a 1: int64 [texts].

        It must have a 0 for the line feed, and zeros and ones only.
        """
        places = np.flatnonzero(_look_up_bytes(self.data, table))
        return np.diff(np.searchsorted(places, self.starts))


@dataclass(frozen=True)
class WordColumn:
    """The folded words of some texts, one text after the other. `column[i]` are the words of one text.

    Attributes:
        hashes: uint64 [words].
        characters: int64 [words], the length of each word.
        starts: int64 [texts + 1], the number of words before each text, and at last of all words.
        letters: UTF-8 of all words without anything between them.
        letter_starts: int64 [texts + 1], where the letters of each text begin in `letters`.
    """

    hashes: Hashes
    characters: Counts
    starts: Counts
    letters: memoryview
    letter_starts: Counts

    @cached_property
    def counts(self) -> Counts:
        """How many words each text has: int64 [texts]."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[Words]:
        for (start, end), (first, last) in zip(
            pairwise(self.starts.tolist()), pairwise(self.letter_starts.tolist()), strict=True
        ):
            yield Words(self.hashes[start:end], self.characters[start:end], self.letters[first:last])

    def __getitem__(self, text: int) -> Words:
        start, end = self.starts[text : text + 2].tolist()
        first, last = self.letter_starts[text : text + 2].tolist()
        return Words(self.hashes[start:end], self.characters[start:end], self.letters[first:last])


def _split_column(column: TextColumn, split: WordSplitter) -> WordColumn:
    """Split texts into words.

    ASCII characters that are neither letters nor digits end a word wherever they stand, and what a run between two of
    them comes to depends on the run alone. Each distinct run is therefore split, folded and hashed once.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    in_word = _look_up_bytes(column.data, _IN_WORD)
    edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1  # a break is at either end of the data
    run_starts, run_ends = edges[::2], edges[1::2]
    offsets = np.zeros(len(run_starts) + 1, np.int64)
    np.cumsum(run_ends - run_starts, out=offsets[1:])
    starts = np.searchsorted(run_starts, column.starts)
    letters = column.data.translate(_LOWER, _BREAKS)
    runs = _binary_array(offsets, letters).dictionary_encode()
    words, ids = runs.dictionary, runs.indices.to_numpy()
    if not (split.keeps_ascii and letters.isascii()):
        words, ids, word_ends = _split_runs(words, ids, split)
        starts = word_ends[starts]
        _, gathered_offsets, gathered = words.take(pa.array(ids)).buffers()
        offsets, letters = np.frombuffer(gathered_offsets, np.int64, len(ids) + 1), gathered or b""
    hashes = hash_words(words.to_pylist())
    characters = pc.utf8_length(words.cast(pa.large_string())).to_numpy()
    return WordColumn(hashes[ids], characters[ids], starts, memoryview(letters), offsets[starts])


def _split_runs(runs: Any, ids: Counts, split: WordSplitter) -> tuple[Any, Counts, Counts]:
    """Split and fold runs.

    Args:
        runs: the distinct ones, an Arrow array of bytes.
        ids: int64 [n], the index in `runs` of each run of some texts.
        split: makes words of those that are not known to be a word.

    Returns:
        words: the distinct runs, of which the ASCII ones are words, and behind them the words of the others.
        ids: int64 [m], the index in `words` of each word of the texts.
        ends: int64 [n + 1], how many words there are before each run of the texts, and at last in all of them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if split.keeps_ascii:
        is_other = pc.invert(pc.string_is_ascii(runs.cast(pa.large_string()))).to_numpy(zero_copy_only=False)
    else:
        is_other = np.ones(len(runs), bool)
    words = split.split_runs(runs.filter(pa.array(is_other)).to_pylist())
    first, counts = np.arange(len(runs)), np.ones(len(runs), np.int64)
    counts[is_other] = np.fromiter(map(len, words), np.int64, len(words))
    first[is_other] = len(runs) + np.cumsum(counts[is_other]) - counts[is_other]
    ends = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(counts[ids], out=ends[1:])
    word_ids = np.arange(ends[-1]) + np.repeat(first[ids] - ends[:-1], counts[ids])
    behind = pa.array([word for run_words in words for word in run_words], pa.large_binary())
    return pa.concat_arrays([runs, behind]), word_ids, ends


def _look_up_bytes(data: bytes, table: bytes) -> Mask:
    """Look up each byte in a table of zeros and ones: bool [bytes]. Five times as fast as the index of an array."""
    return np.frombuffer(data.translate(table), bool)


def _binary_array(offsets: Counts, data: bytes) -> Any:
    """Make an Arrow array of the pieces of `data` between two offsets."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
