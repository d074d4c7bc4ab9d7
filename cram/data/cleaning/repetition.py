"""Which documents repeat themselves: Gopher's rules, asked only where they may refuse."""

import re
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, Words, ngram_hashes, split_words

if TYPE_CHECKING:
    from datatrove.pipeline.filters import GopherRepetitionFilter

# The largest shares that repetitions may have, and the shortest document whose n-grams are looked at, in words.
LINE_SHARE, LINE_CHARACTERS = 0.3, 0.2
TOP_NGRAMS = ((2, 0.20), (3, 0.18), (4, 0.16))
REPEATED_NGRAMS = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
NGRAM_WORDS = 100

Ends: TypeAlias = npt.NDArray[np.int64]

_MARK = 0x80000  # added to a character of a word it gives one that is in no word: all of those are lower


def is_repetitive(text: str, words: Words) -> bool:
    """Whether lines, paragraphs or n-grams of words repeat too much; `words` are the words of `text`.

    Source: Gopher, Rae et al. 2021, arXiv:2112.11446, table A1, as datatrove's GopherRepetitionFilter has it.
    Changed: words are in lower case and without punctuation; n-grams count from `NGRAM_WORDS` words on, because in a
    shorter text a title and its first sentence already repeat too much; white space at the ends, which would make
    lines, is left out.

    datatrove takes twice as long as tokenization, so it is asked only where bounds of its figures, which take a
    twentieth of that, say that it may refuse.
    """
    text = text.strip()
    ngrams = len(words.words) >= NGRAM_WORDS
    if not _may_repeat_lines(text) and not (ngrams and _may_repeat_ngrams(len(text), words)):
        return False
    from datatrove.data import Document

    return _gopher(ngrams).filter(Document(text=text, id="")) is not True


@cache
def _gopher(ngrams: bool) -> "GopherRepetitionFilter":
    from datatrove.pipeline.filters import GopherRepetitionFilter
    from datatrove.utils.word_tokenizers import WordTokenizer

    class OurWords(WordTokenizer):
        """Hands out our words, the first character of each marked: datatrove joins the words of an n-gram without a
        space, and n-grams of different words must not become equal by that."""

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
        language=OurWords(),
    )


def _may_repeat_lines(text: str) -> bool:
    """False if datatrove's rules of lines and paragraphs cannot refuse a stripped text.

    Where no line occurs twice, no paragraph does.
    """
    lines = [line for line in text.split("\n") if line]
    if len(set(lines)) == len(lines):
        return False
    paragraphs = re.split("\n{2,}", text)
    return any(_repeat(parts, len(text)) for parts in (lines, paragraphs))


def _repeat(parts: list[str], characters: int) -> bool:
    unique = set(parts)
    repeated = sum(map(len, parts)) - sum(map(len, unique))
    return (len(parts) - len(unique)) / len(parts) > LINE_SHARE or repeated / characters > LINE_CHARACTERS


def _may_repeat_ngrams(characters: int, words: Words) -> bool:
    """False if datatrove's rules of n-grams cannot refuse a text of so many `characters` and at least 10 words.

    Equal n-grams have equal hashes. That unequal ones have, too, is too rare at 64 bits to matter.
    """
    ends = np.zeros(len(words.words) + 1, np.int64)  # characters in the words before each word, and in all
    np.cumsum(np.fromiter(map(len, words.words), np.int64, len(words.words)), out=ends[1:])
    return _may_have_top_ngram(characters, words.hashes, ends) or _may_repeat_five_words(characters, words.hashes, ends)


def _may_have_top_ngram(characters: int, hashes: Hashes, ends: Ends) -> bool:
    """False if no n-gram of 2 to 4 words takes up more than its share: its length x how often it occurs.

    None is longer than the longest 4 words in a row with their spaces, or occurs more often than its first two
    words, or these more often than a bucket of hashes has entries. Few texts fail that and need the exact figures.
    """
    pairs = ngram_hashes(hashes, 2)
    buckets = (pairs >> np.uint64(63 - len(pairs).bit_length())).view(np.int64)
    most = int(np.bincount(buckets).max()) * (int((ends[4:] - ends[:-4]).max()) + 3)
    if most / characters <= min(share for _, share in TOP_NGRAMS):
        return False
    for n, share in TOP_NGRAMS:
        _, first, counts = np.unique(ngram_hashes(hashes, n), return_index=True, return_counts=True)
        if (counts * (ends[first + n] - ends[first] + n - 1)).max() / characters > share:
            return True
    return False


def _may_repeat_five_words(characters: int, hashes: Hashes, ends: Ends) -> bool:
    """False if no rule of repeated n-grams, of 5 to 10 words, can refuse.

    datatrove adds up n-grams that do not overlap and have occurred before, so no more characters than those of all
    words in such n-grams. All words of one of them lie in runs of five that have occurred before: these come first,
    counted, then exactly, and are too few for any n in nearly all texts.
    """
    least = min(share for _, share in REPEATED_NGRAMS)
    fives = np.sort(ngram_hashes(hashes, 5))
    repeated = int(np.count_nonzero(fives[1:] == fives[:-1]))
    if repeated * int((ends[5:] - ends[:-5]).max()) / characters <= least:
        return False
    if _repeated_characters(hashes, ends, 5) / characters <= least:
        return False
    return any(_repeated_characters(hashes, ends, n) / characters > share for n, share in REPEATED_NGRAMS)


def _repeated_characters(hashes: Hashes, ends: Ends, n: int) -> int:
    """Characters of the words that are in an n-gram that has occurred before."""
    grams = ngram_hashes(hashes, n)
    order = np.argsort(grams, kind="stable")
    again = order[1:][grams[order[1:]] == grams[order[:-1]]]
    covered = np.zeros(len(hashes), bool)
    for offset in range(n):
        covered[again + offset] = True
    return int(np.diff(ends)[covered].sum())
