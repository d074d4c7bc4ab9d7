"""The table of filters: which lines are cut out of a document, and which documents are dropped.

To add a filter, write its function (in a file of this folder, if it is long), add one line to `FILTERS`, and add a key
of the same name to `FilterConfig` in `cram/config/data.py`.

A filter is one of three kinds, by what it needs to know:

LineFilter    sees the text and cuts lines out of it
TextFilter    sees the text and its words, and drops the document or not
TokenFilter   sees how many tokens the text has, and drops the document or not

A filter is off if the value of its key is null or false.

A filter judges one text. It may have a second function that looks at the texts of a chunk at once, as a `TextColumn`,
and says which of them the filter may concern. The others are not shown to the filter, which saves most of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from cram.data.cleaning.boilerplate import cut_boilerplate, has_hints
from cram.data.cleaning.columns import Mask, TextColumn
from cram.data.cleaning.repetition import is_repetitive
from cram.data.cleaning.repetition_bounds import may_be_repetitive
from cram.data.cleaning.symbols import count_symbols_and_digits, have_more_digits, have_more_symbols
from cram.data.cleaning.word_hashes import Words


@dataclass(frozen=True)
class CleanedText:
    """What text filters judge: a text after the line filters, and its folded words."""

    text: str
    words: Words


@dataclass(frozen=True)
class LineFilter:
    """Cuts lines out of a text.

    Attributes:
        name: the key in `data.filters` that switches it on.
        cut: returns the text without these lines; the same object if there are none.
        source: the paper that the rule comes from.
        may_cut: says which texts of a column may have such lines: bool [texts]. None: any of them.
    """

    name: str
    cut: Callable[[str], str]
    source: str
    may_cut: Callable[[TextColumn], Mask] | None = None


@dataclass(frozen=True)
class TextFilter:
    """Drops documents by their text and words.

    Attributes:
        name: the key in `data.filters`; also the reason that manifests and reports give.
        drops: given the value of the key and a text, says whether its document is dropped.
        source: the paper that the rule comes from.
        may_drop: given the value of the key and a column of texts, says which ones `drops` may drop: bool [texts].
            None: any of them.
    """

    name: str
    drops: Callable[[Any, CleanedText], bool]
    source: str
    may_drop: Callable[[Any, TextColumn], Mask] | None = None


@dataclass(frozen=True)
class TokenFilter:
    """Drops documents by their number of tokens.

    Attributes:
        name: the key in `data.filters`; also the reason that manifests and reports give.
        drops: given the value of the key, the tokens of a text without [CLS] and [SEP], and its characters, says
            whether its document is dropped.
        source: the paper that the rule comes from.
    """

    name: str
    drops: Callable[[Any, int, int], bool]
    source: str


Filter: TypeAlias = LineFilter | TextFilter | TokenFilter


def has_too_few_words(least: int, cleaned: CleanedText) -> bool:
    """Whether a text has fewer words than `least`."""
    return len(cleaned.words) < least


def has_too_many_words(most: int, cleaned: CleanedText) -> bool:
    """Whether a text has more words than `most`."""
    return len(cleaned.words) > most


def have_too_few_words(least: int, column: TextColumn) -> Mask:
    """Which texts have fewer words than `least`: bool [texts]."""
    too_few: Mask = column.words.counts < least
    return too_few


def have_too_many_words(most: int, column: TextColumn) -> Mask:
    """Which texts have more words than `most`: bool [texts]."""
    too_many: Mask = column.words.counts > most
    return too_many


def has_too_many_symbols(most: float, cleaned: CleanedText) -> bool:
    """Whether a larger share of the characters than `most` are symbols."""
    return count_symbols_and_digits(cleaned.text)[0] > most * len(cleaned.text)


def has_too_many_digits(most: float, cleaned: CleanedText) -> bool:
    """Whether a larger share of the characters than `most` are digits."""
    return count_symbols_and_digits(cleaned.text)[1] > most * len(cleaned.text)


def repeats_itself(_: bool, cleaned: CleanedText) -> bool:
    """Whether lines, paragraphs or n-grams repeat too much."""
    return is_repetitive(cleaned.text, cleaned.words)


def may_repeat_itself(_: bool, column: TextColumn) -> Mask:
    """Which texts may repeat themselves too much: bool [texts]."""
    return may_be_repetitive(column)


def has_too_many_tokens(most: float, tokens: int, characters: int) -> bool:
    """Whether a text has `most` tokens a character, or more.

    Source: Geiping and Goldstein 2022, arXiv:2212.14034, section 4.4: 0.3 in the text, 0.25 in the code,
    github.com/JonasGeiping/cramming. Changed: the tokenizer is the run's own instead of ALBERT's, so a threshold suits
    one size of vocabulary (0.3 drops 0.5 % of an English corpus at 32768 pieces and 18 % at 4096). [CLS] and [SEP],
    which weigh on short documents only, are not counted.
    """
    return tokens >= most * characters


# Text filters are asked in this order, and the first one that drops a document gives the reason.
FILTERS: tuple[Filter, ...] = (
    LineFilter("boilerplate", cut_boilerplate, "C4, arXiv:1910.10683", has_hints),
    TextFilter(
        "min_words",
        has_too_few_words,
        "Gopher, arXiv:2112.11446, with 50 words",
        have_too_few_words,
    ),
    TextFilter(
        "max_words",
        has_too_many_words,
        "Gopher, arXiv:2112.11446, with 100,000 words",
        have_too_many_words,
    ),
    TextFilter("symbols", has_too_many_symbols, "ROOTS, arXiv:2303.03915", have_more_symbols),
    TextFilter("digits", has_too_many_digits, "ROOTS, arXiv:2303.03915", have_more_digits),
    TextFilter("repetition", repeats_itself, "Gopher, arXiv:2112.11446", may_repeat_itself),
    TokenFilter("compressibility", has_too_many_tokens, "Cramming, arXiv:2212.14034"),
)

# Why a filter drops a document.
REASONS = tuple(rule.name for rule in FILTERS if not isinstance(rule, LineFilter))
