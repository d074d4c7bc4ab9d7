"""A text's words, and hashes of them and of their n-grams: what filters, deduplication and decontamination compare.

`WordSplitter` defines which texts count as the same: texts that a tokenizer makes equal, by folding case, accents,
compatible forms or invisible characters, have the same words.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from cram.files.atomic import to_json

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer

Hashes = npt.NDArray[np.uint64]

_WORD = re.compile(r"[^\W_]+")
_BEYOND_ASCII = re.compile(r"[^\w\x00-\x7f]")
_ASCII = bytes(range(128))
_SPACED = "".join(chr(code) if chr(code).isalnum() else " " for code in range(128))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MOST_FORMS = 1 << 16  # words whose folded form is remembered
# Normalizers that change ASCII letters and digits in their case alone.
_KEEP_ASCII = frozenset(("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip"))
_HARMLESS = frozenset((" {2,}", r"[^\x00-\x7F]+"))  # regular expressions that match no letter or digit of ASCII


@dataclass(frozen=True)
class Words:
    """The folded words of a text, punctuation left out, and a hash of each: uint64 [words]."""

    words: list[str]
    hashes: Hashes


class WordSplitter:
    """Splits a text into folded words, by which texts are compared. Picklable.

    A word is a run of letters and digits; accents, other combining marks and format characters (soft hyphen,
    zero-width space and joiner, word joiner, marks of direction) are left out and do not end one. It is folded, that
    is its compatible form (NFKD) in folded case without all that is no letter or digit, then normalized by the
    tokenizer's normalizer, and folded again.

    Two texts with the same runs of word characters in lower case, whatever stands between these, have the same
    letters in the same order; their words may end at other places, where a mark or format character stood.

    Args:
        normalizer: that of the tokenizer, as `serialize_normalizer` gives it. It is applied to each word by itself.
    """

    def __init__(self, normalizer: str | None = None) -> None:
        self._definition = normalizer
        self._forms: dict[str, str] = {}
        self._normalizer: Normalizer | None = None
        self._ascii_stays = normalizer is None or all(map(_keeps_ascii, _steps(json.loads(normalizer))))

    def __call__(self, text: str) -> list[str]:
        """The folded words of a text, in order."""
        words: list[str] = []
        for line in text.lower().split("\n"):
            # Most lines of English are ASCII, which needs no regular expression: a quarter less time over all.
            if line.isascii():
                found, letters = line.translate(_SPACED).split(), False
            else:
                others = line.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
                letters = any(map(str.isalnum, others))
                found = _WORD.findall(line if all(map(_ends_word, others)) else _BEYOND_ASCII.sub(_joint, line))
            words += self._folded(found) if letters or not self._ascii_stays else found
        return words

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made at first use."""
        return {**self.__dict__, "_forms": {}, "_normalizer": None}

    def _folded(self, words: list[str]) -> list[str]:
        stays, forms = self._ascii_stays, self._forms
        if len(forms) > _MOST_FORMS:
            forms.clear()
        for word in set(words).difference(forms):
            forms[word] = word if stays and word.isascii() else self._fold(word)
        return list(filter(None, map(forms.__getitem__, words)))

    def _fold(self, word: str) -> str:
        folded = _letters(word)
        if self._definition is None:
            return folded
        self._normalizer = self._normalizer or _load(self._definition)
        return _letters(self._normalizer.normalize_str(folded))


split_words = WordSplitter()


def serialize_normalizer(normalizer: "Normalizer | None") -> str | None:
    """A tokenizer's normalizer as JSON, None where it has none or one that only writes bytes as characters."""
    state = normalizer and json.loads(normalizer.__getstate__())
    steps = [step for step in _steps(state) if step["type"] != "ByteLevel"] if state else []
    return to_json({"type": "Sequence", "normalizers": steps}) if steps else None


def _steps(state: dict[str, Any]) -> list[dict[str, Any]]:
    """What a normalizer does, one thing after the other."""
    if state["type"] != "Sequence":
        return [state]
    return [step for inner in state["normalizers"] for step in _steps(inner)]


def _keeps_ascii(step: dict[str, Any]) -> bool:
    """Whether a normalizer changes nothing of an ASCII word but the case of its letters."""
    if step["type"] != "Replace":
        return step["type"] in _KEEP_ASCII
    (pattern,) = step["pattern"].values()
    harmless = "Regex" not in step["pattern"] and not any(map(str.isalnum, pattern))
    return (harmless or pattern in _HARMLESS) and not any(map(str.isalnum, step["content"]))


def _load(normalizer: str) -> "Normalizer":
    from tokenizers import Tokenizer, models

    tokenizer = json.loads(Tokenizer(models.WordPiece()).to_str())
    return Tokenizer.from_str(to_json(tokenizer | {"normalizer": json.loads(normalizer)})).normalizer


def _letters(word: str) -> str:
    """The letters and digits of a word's compatible form, case folded: a fold may need another decomposition."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", word).casefold())
    return "".join(filter(str.isalnum, folded))


@cache
def _ends_word(character: str) -> bool:
    """Not so marks and format characters: they are left out."""
    category = unicodedata.category(character)
    return category != "Cf" and category[0] != "M"


def _joint(found: re.Match[str]) -> str:
    return found[0] if _ends_word(found[0]) else ""


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
    if step < n:
        mixed = np.correlate(hashes, powers(n), "valid")[::step].copy()
    else:  # few of the sums are wanted
        mixed = sliding_window_view(hashes, n)[::step] @ powers(n)
    mixed ^= mixed >> np.uint64(32)  # the low bits of a polynomial depend on low bits alone
    mixed *= _FACTOR
    mixed ^= mixed >> np.uint64(29)
    return mixed


@cache
def powers(n: int) -> Hashes:
    """The first n powers of one odd factor, modulo 2**64: what the n-th item of a sequence is multiplied by."""
    return np.cumprod(np.full(n, _FACTOR), dtype=np.uint64)
