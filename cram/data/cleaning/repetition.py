"""Find documents that repeat themselves, by Gopher's rules.

datatrove computes these rules exactly, but takes twice as long as tokenization. It is asked only about texts that it
might drop. Upper bounds of its figures tell which texts these are. `repetition_bounds` has looser bounds, for many
texts at once, so that few texts come here at all.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, Words, ngram_hashes, split_words

if TYPE_CHECKING:
    from datatrove.pipeline.filters import GopherRepetitionFilter

# The largest shares of a text that repetitions may take up.
LINE_SHARE, LINE_CHARACTERS = 0.3, 0.2
TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
REPEATED_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
NGRAM_WORDS = 100  # words of the shortest document whose n-grams are looked at

Ends: TypeAlias = npt.NDArray[np.int64]

_MARK = 0x80000  # all letters and digits have code points below it


def is_repetitive(text: str, words: Words) -> bool:
    """Whether lines, paragraphs or n-grams of words repeat too much.

    Args:
        text: the text after cleaning.
        words: the words of `text`.

    Source: Gopher, Rae et al. 2021, arXiv:2112.11446, table A1, as datatrove's GopherRepetitionFilter has it.
    Changed: words are in lower case and without punctuation; n-grams are looked at in texts of `NGRAM_WORDS` words or
    more, because in a shorter text a title and its first sentence already repeat too much; white space at both ends,
    which would count as lines, is left out.
    """
    text = text.strip()
    ngrams = len(words) >= NGRAM_WORDS
    if not may_repeat_lines(text) and not (ngrams and _may_repeat_ngrams(len(text), words)):
        return False
    from datatrove.data import Document

    return _make_gopher(ngrams).filter(Document(text=text, id="")) is not True


@cache
def _make_gopher(ngrams: bool) -> "GopherRepetitionFilter":
    """Make datatrove's filter with our words; without `ngrams` it has the rules of lines and paragraphs only."""
    from datatrove.pipeline.filters import GopherRepetitionFilter
    from datatrove.utils.word_tokenizers import WordTokenizer

    class MarkedWords(WordTokenizer):  # type: ignore[misc,unused-ignore]  # datatrove has no types
        """Gives datatrove our words, with the first character of each marked.

        datatrove joins the words of an n-gram without a space. The marks keep n-grams of different words different.
        """

        def word_tokenize(self, text: str) -> list[str]:
            return [chr(ord(word[0]) + _MARK) + word[1:] for word in split_words(text)]

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            raise NotImplementedError

    return GopherRepetitionFilter(
        LINE_SHARE,
        LINE_SHARE,
        LINE_CHARACTERS,
        LINE_CHARACTERS,
        TOP_NGRAMS if ngrams else (),
        REPEATED_NGRAMS if ngrams else (),
        language=MarkedWords(),
    )


def may_repeat_lines(text: str) -> bool:
    """Return False only if datatrove's rules of lines and paragraphs keep a stripped text."""
    if "\n" not in text:
        return False
    lines = [line for line in text.split("\n") if line]
    if len(set(lines)) == len(lines):  # then no paragraph occurs twice either
        return False
    paragraphs = re.split("\n{2,}", text)
    return any(_repeat_too_much(parts, len(text)) for parts in (lines, paragraphs))


def _repeat_too_much(parts: list[str], characters: int) -> bool:
    unique = set(parts)
    repeated = sum(map(len, parts)) - sum(map(len, unique))
    return (len(parts) - len(unique)) / len(parts) > LINE_SHARE or repeated / characters > LINE_CHARACTERS


def _may_repeat_ngrams(characters: int, words: Words) -> bool:
    """Return False only if datatrove's rules of n-grams keep a text of this many characters and at least 10 words.

    Equal n-grams have equal hashes. Different n-grams with equal hashes are too rare at 64 bits to matter.
    """
    ends = np.append(0, words.characters.cumsum())  # characters of the words before each word; at last of all words
    return _may_have_top_ngram(characters, words.hashes, ends) or _may_repeat_five_words(characters, words.hashes, ends)


def _may_have_top_ngram(characters: int, hashes: Hashes, ends: Ends) -> bool:
    """Return False only if no n-gram of 2 to 4 words takes up more than its share: its length times its occurrences."""
    for n, share in TOP_NGRAMS:
        _, first, counts = np.unique(ngram_hashes(hashes, n), return_index=True, return_counts=True)
        if (counts * (ends[first + n] - ends[first] + n - 1)).max() / characters > share:
            return True
    return False


def _may_repeat_five_words(characters: int, hashes: Hashes, ends: Ends) -> bool:
    """Return False only if no rule of repeated n-grams, of 5 to 10 words, drops the text.

    datatrove adds up the n-grams that have occurred before and do not overlap. The bound is the number of characters
    of all words in n-grams that have occurred before. Every word of a longer repeated n-gram lies in a repeated run of
    five words, so the fives are looked at first. They are too few for any n in nearly all texts.
    """
    if _count_repeated(hashes, ends, 5) / characters <= min(share for _, share in REPEATED_NGRAMS):
        return False
    return any(_count_repeated(hashes, ends, n) / characters > share for n, share in REPEATED_NGRAMS)


def _count_repeated(hashes: Hashes, ends: Ends, n: int) -> int:
    """Count the characters of the words in n-grams that have occurred before."""
    grams = ngram_hashes(hashes, n)
    order = np.argsort(grams, kind="stable")
    again = order[1:][grams[order[1:]] == grams[order[:-1]]]
    covered = np.zeros(len(hashes), bool)
    for offset in range(n):
        covered[again + offset] = True
    return int(np.diff(ends)[covered].sum())
