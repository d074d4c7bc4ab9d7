"""Split a text into words and hash the words and their n-grams, for filters, deduplication and decontamination.

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
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MOST_FORMS = 1 << 16  # words whose folded form is remembered
_LONGEST_RUN = 64  # bytes of a text whose words are remembered
# Normalizers that change nothing about ASCII letters and digits except their case.
_KEEP_ASCII = frozenset(("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip"))
_HARMLESS = frozenset((" {2,}", r"[^\x00-\x7F]+"))  # regular expressions that do not match ASCII letters or digits


@dataclass(frozen=True)
class Words:
    """The folded words of a text, without punctuation.

    Attributes:
        hashes: uint64 [words], a hash of each word.
        characters: int64 [words], the length of each word.
        letters: the words in UTF-8 without anything between them.
    """

    hashes: Hashes
    characters: npt.NDArray[np.int64]
    letters: memoryview

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def words(self) -> list[str]:
        """The words themselves, made whenever they are asked for."""
        letters, ends = str(self.letters, "utf-8"), self.characters.cumsum().tolist()
        return [letters[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class WordSplitter:
    """Splits a text into folded words, by which texts are compared. It can be pickled.

    A word is a run of letters and digits. Accents, other combining marks and format characters (soft hyphen,
    zero-width space and joiner, word joiner, marks of direction) are left out and do not end a word. A word is folded
    in three steps: its compatible form (NFKD) is taken in folded case and reduced to letters and digits; the
    tokenizer's normalizer is applied; the result is folded again.

    Two texts with the same runs of word characters in lower case, whatever stands between the runs, have the same
    letters in the same order. Their words may end at different places, where a mark or format character stood.

    Args:
        normalizer: the tokenizer's normalizer, as `serialize_normalizer` returns it. It is applied to each word alone.

    Attributes:
        keeps_ascii: whether folding changes nothing about ASCII letters and digits except the case of letters.
    """

    def __init__(self, normalizer: str | None = None) -> None:
        self.keeps_ascii = normalizer is None or all(map(_step_keeps_ascii, _list_steps(json.loads(normalizer))))
        self._definition = normalizer
        self._forms: dict[str, str] = {}
        self._runs: dict[bytes, list[bytes]] = {}
        self._normalizer: Normalizer | None = None

    def __call__(self, text: str) -> list[str]:
        """Return the folded words of a text, in order."""
        return self._fold_words(_WORD.findall(_drop_joints(text.lower())))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made at first use."""
        return {**self.__dict__, "_forms": {}, "_runs": {}, "_normalizer": None}

    def fold_word(self, word: str) -> str:
        """Return the folded form of a run of letters and digits; it may be empty."""
        folded = _fold_letters(word)
        if self._definition is None:
            return folded
        self._normalizer = self._normalizer or _load_normalizer(self._definition)
        return _fold_letters(self._normalizer.normalize_str(folded))

    def split_runs(self, runs: Sequence[bytes]) -> list[list[bytes]]:
        """Return the folded words of many short texts without line feeds, in UTF-8; they are remembered."""
        known = self._runs
        if len(known) > _MOST_FORMS:
            known.clear()
        new = [run for run in runs if run not in known]
        lines = _drop_joints(b"\n".join(new).decode().lower()).split("\n")
        words = {
            run: [word.encode() for word in self._fold_words(_WORD.findall(line))]
            for run, line in zip(new, lines, strict=False)
        }
        known.update((run, run_words) for run, run_words in words.items() if len(run) <= _LONGEST_RUN)
        return [known[run] if run in known else words[run] for run in runs]

    def _fold_words(self, words: list[str]) -> list[str]:
        forms = self._forms
        if len(forms) > _MOST_FORMS:
            forms.clear()
        for word in words:
            if word not in forms:
                forms[word] = word if self.keeps_ascii and word.isascii() else self.fold_word(word)
        return list(filter(None, map(forms.__getitem__, words)))


split_words = WordSplitter()


def serialize_normalizer(normalizer: "Normalizer | None") -> str | None:
    """Return a tokenizer's normalizer as JSON; None if there is none, or one that only writes bytes as characters."""
    state = normalizer and json.loads(normalizer.__getstate__())
    steps = [step for step in _list_steps(state) if step["type"] != "ByteLevel"] if state else []
    return to_json({"type": "Sequence", "normalizers": steps}) if steps else None


def _list_steps(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Flatten nested sequences of normalizers."""
    if state["type"] != "Sequence":
        return [state]
    return [step for inner in state["normalizers"] for step in _list_steps(inner)]


def _step_keeps_ascii(step: dict[str, Any]) -> bool:
    """Whether a normalizer changes nothing about an ASCII word except the case of its letters."""
    if step["type"] != "Replace":
        return step["type"] in _KEEP_ASCII
    (pattern,) = step["pattern"].values()
    harmless = "Regex" not in step["pattern"] and not any(map(str.isalnum, pattern))
    return (harmless or pattern in _HARMLESS) and not any(map(str.isalnum, step["content"]))


def _load_normalizer(definition: str) -> "Normalizer":
    from tokenizers import Tokenizer, models

    tokenizer = json.loads(Tokenizer(models.WordPiece()).to_str())
    normalizer: Normalizer | None = Tokenizer.from_str(
        to_json(tokenizer | {"normalizer": json.loads(definition)})
    ).normalizer
    assert normalizer is not None
    return normalizer


def _fold_letters(word: str) -> str:
    """Return the letters and digits of a word's compatible form in folded case."""
    # Twice NFKD, because folding the case may give characters that decompose again.
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", word).casefold())
    return "".join(filter(str.isalnum, folded))


def _drop_joints(text: str) -> str:
    """Leave out marks and format characters, which do not end a word."""
    joints = "".join(sorted(filter(_is_joint, set(text))))
    return re.sub(f"[{joints}]", "", text) if joints else text


@cache
def _is_joint(character: str) -> bool:
    category = unicodedata.category(character)
    return (category == "Cf" or category[0] == "M") and not character.isalnum()


def hash_words(words: Sequence[bytes]) -> Hashes:
    """Hash words, given in UTF-8: uint64 [words]. Equal words have equal hashes on every machine."""
    from rensa import RMinHash

    (hashes,) = RMinHash.hash_token_sets([words])
    return np.fromiter(hashes, np.uint64, len(words))


def ngram_hashes(hashes: Hashes, n: int, step: int = 1) -> Hashes:
    """Return a hash of each run of n words that starts at a multiple of `step`: uint64 [(words - n) // step + 1].

    The result is empty for a text of fewer words. Runs of the same words in the same order have the same hash.

    Source: Karp and Rabin 1987 (a polynomial of the words' hashes, modulo 2**64). Changed: the bits are mixed.
    """
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    if step == 1:
        mixed = np.correlate(hashes, hash_powers(n), "valid")
    elif step < n:
        mixed = np.correlate(hashes, hash_powers(n), "valid")[::step].copy()
    else:  # only a few of the sums are needed
        mixed = sliding_window_view(hashes, n)[::step] @ hash_powers(n)
    mixed ^= mixed >> np.uint64(32)  # the low bits of a polynomial depend only on the low bits of the hashes
    mixed *= _FACTOR
    mixed ^= mixed >> np.uint64(29)
    return mixed


@cache
def hash_powers(n: int) -> Hashes:
    """Return the first n powers of one odd factor, modulo 2**64: the coefficients of the polynomial of a sequence."""
    return np.cumprod(np.full(n, _FACTOR), dtype=np.uint64)


def look_up(hashes: Hashes, sorted_hashes: Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which hashes are among sorted ones, and their places there (or where they would be inserted)."""
    places = np.searchsorted(sorted_hashes, hashes)
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool), places
    return sorted_hashes.take(places, mode="clip") == hashes, places
