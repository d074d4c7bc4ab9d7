"""A text's words, and hashes of them and of their n-grams: what filters, deduplication and decontamination compare."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_SPACED = "".join(chr(code) if chr(code).isalnum() or chr(code) == "_" else " " for code in range(128))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Words:
    """The lower-cased words of a text, punctuation left out, and a hash of each: uint64 [words]."""

    words: list[str]
    hashes: Hashes


def split_words(text: str) -> list[str]:
    """The words of a text in lower case; a word is a run of letters, digits and underscores."""
    words: list[str] = []
    for line in text.lower().split("\n"):
        # Most lines of English are ASCII, which needs no regular expression: a quarter less time over all.
        words += line.translate(_SPACED).split() if line.isascii() else _WORD.findall(line)
    return words


def hash_words(texts: Sequence[list[str]]) -> list[Words]:
    """Words with their hashes, many texts at once: equal words have equal hashes on every machine."""
    from rensa import RMinHash

    hashes = RMinHash.hash_token_sets(texts)
    return [Words(words, np.fromiter(row, np.uint64, len(row))) for words, row in zip(texts, hashes, strict=True)]


def ngram_hashes(hashes: Hashes, n: int, step: int = 1) -> Hashes:
    """A hash of each run of n words that starts at a multiple of `step`: uint64 [(words - n) // step + 1].

    Empty for a text of fewer words. Runs of the same words in the same order have the same hash.
    Source: Karp and Rabin 1987 (a polynomial of the words' hashes, modulo 2**64). Changed: its bits are mixed after.
    """
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    mixed = np.correlate(hashes, _powers(n), "valid")[::step].copy()
    mixed ^= mixed >> np.uint64(32)  # the low bits of a polynomial depend on low bits alone
    mixed *= _FACTOR
    mixed ^= mixed >> np.uint64(29)
    return mixed


@cache
def _powers(n: int) -> Hashes:
    return np.cumprod(np.full(n, _FACTOR), dtype=np.uint64)
