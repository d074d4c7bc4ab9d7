"""Count the distinct words of a text, so that a tokenizer's training handles each of them once.

Text repeats itself: 50 MB of English hold eight million pieces between spaces, half a million distinct ones and 160,000
distinct words. What works word by word, as normalizing does, needs to see each of them only once.
"""

import string
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from cram.data.text.document import byte_size
from cram.machine.host import cores

if TYPE_CHECKING:
    import pyarrow as pa

# White space at which every normalizer and pre-tokenizer of ours splits, whatever stands beside it.
SPACES = b" \t\n\r"
_TO_SPACE = bytes.maketrans(SPACES, b" " * len(SPACES))
_SPACE = SPACES[0]
_GROUP_BYTES = 2_000_000  # text that is counted at once; larger groups do not save time
_MOST_THREADS = 4
_PUNCTUATION = np.isin(np.arange(256), list(string.punctuation.encode()))
_PRINTABLE = np.isin(np.arange(256), list(range(33, 127)))
_LOWER = np.frombuffer(bytes(range(256)).lower(), np.uint8)

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


class Counted(NamedTuple):
    """Distinct strings and how often each occurs.

    Attributes:
        strings: UTF-8, binary [strings].
        counts: int64 [strings].
    """

    strings: "pa.LargeBinaryArray"
    counts: Counts


def count_units(texts: Iterable[str]) -> Counted:
    """Count the distinct units of texts: the pieces between white space of ASCII; none of them is empty."""
    with ThreadPoolExecutor(min(cores(), _MOST_THREADS)) as pool:  # NumPy and Arrow let other threads work meanwhile
        return _add_up(list(pool.map(_count_group, _group(texts))))


def count_plain_words(units: Counted, lowercase: bool) -> tuple[dict[str, int], Counted]:
    """Split the plain units at punctuation, and count the distinct words.

    A unit is plain if all of its characters are printable ASCII, and neither a backtick nor two apostrophes in a row
    are among them. Our normalizers change nothing about such a unit, or only the case of its letters.

    Args:
        units: distinct units and their counts.
        lowercase: whether the normalizer changes upper case to lower case.

    Returns:
        How often each word occurs in plain units, where each sign of punctuation is a word; and the other units.
    """
    import pyarrow as pa

    if not len(units.counts):
        return {}, units
    data, offsets = _buffers(units.strings)
    odd = ~_PRINTABLE[data] | (data == ord("`"))
    apostrophe = data == ord("'")
    odd[1:] |= apostrophe[1:] & apostrophe[:-1]  # across the border of two units as well, which does no harm
    plain = ~np.logical_or.reduceat(odd, offsets[:-1])
    others = Counted(units.strings.filter(pa.array(~plain)), units.counts[~plain])
    counts = units.counts[plain]
    if not len(counts):
        return {}, others
    data, offsets = _buffers(units.strings.filter(pa.array(plain)))
    is_sign = _PUNCTUATION[data]
    starts_unit = np.zeros(len(data), bool)
    starts_unit[offsets[:-1]] = True
    starts = starts_unit | is_sign
    starts[1:] |= is_sign[:-1]
    begins = np.flatnonzero(starts)
    unit_of_word = np.cumsum(starts_unit[begins]) - 1
    words = _cut(_LOWER[data] if lowercase else data, np.append(begins, len(data)))
    words, counts = _add_up([Counted(words, counts[unit_of_word])])
    return dict(zip(words.cast(pa.large_string()).to_pylist(), counts.tolist(), strict=True)), others


def count_characters(words: dict[str, int]) -> dict[str, int]:
    """Return how often each character occurs in counted words."""
    if not words:
        return {}
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    # The sums are exact, because a float64 holds every integer up to 2**53.
    totals = np.bincount(codes, np.repeat(np.fromiter(words.values(), np.int64, len(words)), lengths))
    return {chr(code): int(totals[code]) for code in np.flatnonzero(totals).tolist()}


def repeat_words(words: dict[str, int], size: int = 10_000) -> Iterator[str]:
    """Yield texts that together hold each word as often as its count says, separated by spaces.

    Args:
        words: counts of words without spaces.
        size: characters of a text, about.
    """
    repeated: list[str] = []
    length = 0
    for word, count in words.items():
        most = max(1, size // (len(word) + 1))
        for some in [most] * (count // most) + [count % most]:
            repeated.append(f"{word} " * some)
            length += some * (len(word) + 1)
            if length >= size:
                yield "".join(repeated)
                repeated, length = [], 0
    if repeated:
        yield "".join(repeated)


def _group(texts: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += byte_size(text)
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _count_group(texts: list[str]) -> Counted:
    import pyarrow as pa
    import pyarrow.compute as pc

    data = np.frombuffer("\n".join(texts).encode().translate(_TO_SPACE) + b" ", np.uint8)
    ends = np.flatnonzero(data == _SPACE) + 1  # each unit is cut with the space behind it
    found = pc.value_counts(_cut(data, np.insert(ends, 0, 0)))
    data, offsets = _buffers(found.field("values"))
    strings = _cut(np.delete(data, offsets[1:] - 1), offsets - np.arange(len(offsets)))
    lengths = np.diff(offsets) - 1
    filled = lengths > 0
    return Counted(strings.filter(pa.array(filled)), found.field("counts").to_numpy()[filled])


def _add_up(parts: list[Counted]) -> Counted:
    """Add the counts of equal strings."""
    import pyarrow as pa

    strings = pa.chunked_array([part.strings for part in parts], pa.large_binary()).combine_chunks()
    encoded = strings.dictionary_encode()
    counts = np.concatenate([part.counts for part in parts]) if parts else np.empty(0, np.int64)
    sums = np.bincount(encoded.indices.to_numpy(), counts, len(encoded.dictionary))
    return Counted(encoded.dictionary, sums.astype(np.int64))


def _cut(data: Bytes, offsets: Counts) -> "pa.LargeBinaryArray":
    """Cut data into strings, of which number i begins at `offsets[i]` and ends at `offsets[i + 1]`."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def _buffers(strings: "pa.LargeBinaryArray") -> tuple[Bytes, Counts]:
    """Return the bytes of an array that `_cut` or Arrow made, and the offset of each string and of the end."""
    assert strings.offset == 0
    _, offsets, data = strings.buffers()
    places = np.frombuffer(offsets, np.int64)[: len(strings) + 1]
    return np.frombuffer(data, np.uint8)[: places[-1]], places
