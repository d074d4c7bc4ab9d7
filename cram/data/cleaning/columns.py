"""Texts as columns: the bytes and words of many texts in a few long arrays, for work on all of them at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, compress, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, Words, WordSplitter, hash_words

Mask: TypeAlias = npt.NDArray[np.bool_]
Counts: TypeAlias = npt.NDArray[np.int64]

_ASCII = bytes(range(128))
BEYOND_ASCII = bytes(range(0xC0, 0x100))  # the first byte of a character in UTF-8
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
        encoded = [text.encode() for text in texts]
        self.data = b"\n".join([b"", *encoded, b""])
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self.starts = np.cumsum(np.append(1, sizes + 1))
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
        return codes, np.searchsorted(self.starts, self._find(BEYOND_ASCII), side="right") - 1

    def count(self, codes: bytes) -> Counts:
        """Count the bytes of each text that are among `codes`, without the line feed: int64 [texts]."""
        return np.diff(np.searchsorted(self._find(codes), self.starts))

    def _find(self, codes: bytes) -> Counts:
        """Return where in `data` one of some bytes stands."""
        return np.flatnonzero(_look_up_bytes(self.data, _make_table(codes)))


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
    words, ids = runs.dictionary, runs.indices.to_numpy().astype(np.int64)  # an index of another type is slow
    letter_starts = offsets[starts]
    if not (split.keeps_ascii and letters.isascii()):
        changed, replacements = _find_changed(words, split)
        places = np.flatnonzero(changed[ids])  # runs that are something else than one word in lower case
        chosen = np.cumsum(changed)[ids[places]] - 1
        letters, shifts = _replace_letters(letters, offsets, places, [replacements[i] for i in chosen.tolist()])
        letter_starts = letter_starts + shifts[np.searchsorted(places, starts)]
        counts = np.fromiter(map(len, replacements), np.int64, len(replacements))
        first = len(words) + np.cumsum(counts) - counts
        ids, shifts = _replace_ids(ids, places, first[chosen], counts[chosen])
        starts = starts + shifts[np.searchsorted(places, starts)]
        words = pa.concat_arrays([words, pa.array(list(chain.from_iterable(replacements)), pa.large_binary())])
    hashes = hash_words(words.to_pylist())
    characters = pc.utf8_length(words.cast(pa.large_string())).to_numpy()
    return WordColumn(hashes[ids], characters[ids], starts, memoryview(letters), letter_starts)


def _find_changed(runs: Any, split: WordSplitter) -> tuple[Mask, list[list[bytes]]]:
    """Split and fold distinct runs, an Arrow array of bytes in lower case.

    Returns:
        changed: bool [runs], which runs are something else than one word that folding leaves as it is.
        replacements: the words of each of these.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    changed = np.ones(len(runs), bool)
    if split.keeps_ascii:
        changed = pc.invert(pc.string_is_ascii(runs.cast(pa.large_string()))).to_numpy(zero_copy_only=False)
    candidates = runs.filter(pa.array(changed)).to_pylist()
    words = split.split_runs(candidates)
    is_other = [run_words != [run] for run, run_words in zip(candidates, words, strict=True)]
    changed[changed] = is_other
    return changed, list(compress(words, is_other))


def _replace_letters(
    letters: bytes, offsets: Counts, places: Counts, replacements: list[list[bytes]]
) -> tuple[bytes, Counts]:
    """Write words in the places of some runs.

    Args:
        letters: of all runs.
        offsets: int64 [runs + 1], where each run begins.
        places: int64 [n], the indices of some runs, ascending.
        replacements: the words for each of them.

    Returns:
        letters: with the words.
        shifts: int64 [n + 1], how far they move the letters of the runs behind the first 0 to n places.
    """
    pieces: list[bytes] = []
    done = 0
    joined = list(map(b"".join, replacements))
    for begin, end, piece in zip(offsets[places].tolist(), offsets[places + 1].tolist(), joined, strict=True):
        pieces += (letters[done:begin], piece)
        done = end
    changes = np.fromiter(map(len, joined), np.int64, len(joined)) - np.diff(offsets)[places]
    return b"".join([*pieces, letters[done:]]), np.append(0, np.cumsum(changes))


def _replace_ids(ids: Counts, places: Counts, first: Counts, counts: Counts) -> tuple[Counts, Counts]:
    """Put consecutive ids in the places of some others.

    Args:
        ids: int64 [all].
        places: int64 [n], indices in `ids`, ascending.
        first: int64 [n], the first of the ids for each place.
        counts: int64 [n], how many ids there are for each place.

    Returns:
        ids: with the new ones.
        shifts: int64 [n + 1], how far they move the ids behind the first 0 to n places.
    """
    shifts = np.append(0, np.cumsum(counts - 1))
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    repeats = np.ones(len(ids), np.int64)
    repeats[places] = counts
    replaced = np.repeat(ids, repeats)
    replaced[np.repeat(places + shifts[:-1], counts) + within] = np.repeat(first, counts) + within
    return replaced, shifts


@cache
def _make_table(codes: bytes) -> bytes:
    """Make a table with ones for some bytes, and zeros for the others."""
    return bytes(code in codes for code in range(256))


def _look_up_bytes(data: bytes, table: bytes) -> Mask:
    """Look up each byte in a table of zeros and ones: bool [bytes]. Five times as fast as the index of an array."""
    return np.frombuffer(data.translate(table), bool)


def _binary_array(offsets: Counts, data: bytes) -> Any:
    """Make an Arrow array of the pieces of `data` between two offsets."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
