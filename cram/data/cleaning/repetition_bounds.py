"""Upper bounds of the figures of `repetition`, for many texts at once: few texts exceed them and must be looked at.

An n-gram occurs at most as often as each pair of neighbouring words in it. Pairs are counted by buckets of their
hashes, and each text has its own buckets. A count may thus be too large, but never too small. Nearly all pairs of a
text occur once, so little work is left after the counting.
"""

from operator import is_not

import numpy as np

from cram.data.cleaning.columns import Counts, Mask, TextColumn, WordColumn
from cram.data.cleaning.repetition import NGRAM_WORDS, REPEATED_NGRAMS, TOP_NGRAMS, may_repeat_lines
from cram.data.cleaning.word_hashes import hash_powers

_LEAST_TOP, _LEAST_REPEATED = (min(share for _, share in rules) for rules in (TOP_NGRAMS, REPEATED_NGRAMS))
_LONGEST_TOP = max(n for n, _ in TOP_NGRAMS)
_SHORTEST = min(n for n, _ in REPEATED_NGRAMS)
_TEXT_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)  # any large odd number


def may_be_repetitive(column: TextColumn) -> Mask:
    """Return False only for texts that `is_repetitive` keeps: bool [texts]."""
    stripped = [text.strip() for text in column.texts]
    suspects = _may_have_equal_lines(column)
    # White space that is left out may make two lines equal.
    suspects |= np.fromiter(map(is_not, stripped, column.texts), bool, len(stripped))
    for i in np.flatnonzero(suspects).tolist():
        suspects[i] = may_repeat_lines(stripped[i])
    characters = np.fromiter(map(len, stripped), np.int64, len(stripped))
    suspects |= (column.words.counts >= NGRAM_WORDS) & _may_repeat_ngrams(column.words, np.maximum(characters, 1))
    return suspects


def _may_have_equal_lines(column: TextColumn) -> Mask:
    """Return False only for texts in which no line, other than empty ones, occurs twice: bool [texts].

    Lines are compared by their lengths and their first and last eight bytes.
    """
    data = np.frombuffer(column.data, np.uint8)
    breaks = np.flatnonzero(data == ord("\n"))
    starts, lengths = breaks[:-1] + 1, np.diff(breaks) - 1
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    owners = np.searchsorted(column.starts, starts, side="right") - 1
    last = starts + np.maximum(lengths - 8, 0)
    places = np.minimum(np.stack([starts, last])[..., None] + np.arange(8), len(data) - 1)
    ends = data[places] * (np.arange(8) < lengths[:, None])  # uint8 [2, lines, 8]
    parts = np.stack([owners.view(np.uint64), lengths.view(np.uint64), *ends.view(np.uint64)[..., 0]])
    keys = hash_powers(4) @ parts
    order = np.argsort(keys)
    has_equal = np.zeros(len(column.texts), bool)
    has_equal[owners[order[1:][keys[order[1:]] == keys[order[:-1]]]]] = True
    return has_equal


def _may_repeat_ngrams(words: WordColumn, characters: Counts) -> Mask:
    """Return False only for texts whose n-grams repeat no more than they may, as `is_repetitive` counts them.

    Args:
        words: of the texts.
        characters: int64 [texts], the length of each stripped text.
    """
    text_of = np.repeat(np.arange(len(words)), words.counts)
    ends = np.zeros(len(text_of) + 1, np.int64)
    np.cumsum(words.characters, out=ends[1:])
    counts = _count_pairs(words)
    pair_again = counts > 1
    again = np.flatnonzero(pair_again)
    longest = _LONGEST_TOP * _find_longest(words) + _LONGEST_TOP - 1  # an n-gram has no more characters
    suspects: Mask = longest / characters > _LEAST_TOP  # it may take up more than its share although it occurs once
    least_counts = 0.999 * _LEAST_TOP * characters / longest  # a little less, so that no rounding matters
    frequent = again[counts[again] > least_counts[text_of[again]]]
    most = counts[frequent]
    for n, share in TOP_NGRAMS:
        most = np.minimum(most, counts[frequent + n - 2])
        frequent, most = frequent[most > 1], most[most > 1]
        owners = text_of[frequent]
        lengths = ends[frequent + n] - ends[frequent] + n - 1
        suspects[owners[most * lengths / characters[owners] > share]] = True
    all_again = np.logical_and.reduce([pair_again[step : step - _SHORTEST] for step in range(_SHORTEST - 1)])
    repeated = _find_repeated(words, np.flatnonzero(all_again), text_of)
    covered = np.zeros(len(text_of), bool)
    for step in range(_SHORTEST):
        covered[repeated + step] = True
    (covered_words,) = covered.nonzero()
    repeated_characters = np.bincount(text_of[covered_words], words.characters[covered_words], len(words))
    suspects |= repeated_characters / characters > _LEAST_REPEATED
    return suspects


def _count_pairs(words: WordColumn) -> Counts:
    """Return at least how often the pair that begins at each word occurs in its text: int64 [words + _SHORTEST].

    It is 0 for the last word of a text, and behind the last text.
    """
    bits = np.frexp(words.counts)[1] + 1  # two to four buckets for each word
    bases = np.append(0, np.cumsum(1 << bits.astype(np.int64)))
    first, second = hash_powers(2)
    pairs = words.hashes * first
    pairs[:-1] += words.hashes[1:] * second
    pairs >>= np.repeat((64 - bits).astype(np.uint64), words.counts)
    buckets = pairs.view(np.int64)
    buckets += np.repeat(bases[:-1], words.counts)
    last = words.starts[1:][words.counts > 0] - 1
    buckets[last] = bases[-1]
    totals = np.bincount(buckets, minlength=int(bases[-1]) + 1)
    totals[-1] = 0
    counts = np.zeros(len(buckets) + _SHORTEST, np.int64)
    np.take(totals, buckets, out=counts[: len(buckets)])
    return counts


def _find_longest(words: WordColumn) -> Counts:
    """Return the length of the longest word of each text: int64 [texts]."""
    (nonempty,) = words.counts.nonzero()
    longest = np.zeros(len(words), np.int64)
    if len(nonempty):
        longest[nonempty] = np.maximum.reduceat(words.characters, words.starts[nonempty])
    return longest


def _find_repeated(words: WordColumn, places: Counts, text_of: Counts) -> Counts:
    """Return those of some places at which an n-gram begins that began at an earlier one of them in the same text."""
    keys = text_of[places].astype(np.uint64) * _TEXT_FACTOR
    for step, power in enumerate(hash_powers(_SHORTEST)):
        keys += words.hashes[places + step] * power
    order = np.argsort(keys, kind="stable")
    again: Counts = places[order[1:][keys[order[1:]] == keys[order[:-1]]]]
    return again
