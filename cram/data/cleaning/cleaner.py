"""Clean and judge documents: the one place that every stage of a preparation asks.

The sample for the tokenizer, the first pass and the second pass all see a document as `Cleaner` leaves it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import is_not
from typing import Any

import numpy as np

from cram.config.data import FilterConfig
from cram.data.cleaning.columns import TextColumn
from cram.data.cleaning.filters import FILTERS, CleanedText, LineFilter, TextFilter, TokenFilter
from cram.data.cleaning.word_hashes import Words, WordSplitter, split_words

EMPTY = "empty"  # the reason why a document without a word is dropped


@dataclass(frozen=True)
class Judgement:
    """What cleaning and judging a document came to.

    Attributes:
        text: the text without the lines that were cut.
        words: the folded words of `text`.
        reason: why the document is dropped: the name of a filter, or `EMPTY`. None: it is kept.
    """

    text: str
    words: Words
    reason: str | None


class Cleaner:
    """Applies the filters of `data.filters`; cheap to make and to pickle.

    Args:
        config: which filters are on, and their thresholds.
        split: makes the words that documents are judged by.
    """

    def __init__(self, config: FilterConfig, split: WordSplitter = split_words) -> None:
        self._split = split
        self._line_filters: list[LineFilter] = []
        self._text_filters: list[tuple[TextFilter, Any]] = []
        self._token_filters: list[tuple[TokenFilter, Any]] = []
        for rule in FILTERS:
            threshold = getattr(config, rule.name)
            if threshold is None or threshold is False:
                continue
            if isinstance(rule, LineFilter):
                self._line_filters.append(rule)
            elif isinstance(rule, TextFilter):
                self._text_filters.append((rule, threshold))
            else:
                self._token_filters.append((rule, threshold))

    def clean(self, text: str) -> str:
        """Return the text without the lines that are cut; the same object if there are none."""
        for rule in self._line_filters:
            text = rule.cut(text)
        return text

    def judge(self, texts: Sequence[str], exempt: Collection[int] = ()) -> list[Judgement]:
        """Clean and judge texts; many at once are faster than one by one.

        Args:
            texts: the documents' texts as they were read.
            exempt: indices of texts that are neither cleaned nor filtered. Held-out documents are exempt, so that they
                are the same whatever the filters. An exempt text is dropped only if it is blank.
        """
        column = self._clean(texts, exempt)
        reasons = self._find_reasons(column, exempt)
        return [
            Judgement(text, words, reason)
            for text, words, reason in zip(column.texts, column.words, reasons, strict=True)
        ]

    def judge_tokens(self, tokens: int, characters: int) -> str | None:
        """Return the name of the token filter that drops a cleaned text, or None.

        Args:
            tokens: how many tokens the text has, without [CLS] and [SEP].
            characters: length of the text.
        """
        return next((rule.name for rule, most in self._token_filters if rule.drops(most, tokens, characters)), None)

    def _clean(self, texts: Sequence[str], exempt: Collection[int]) -> TextColumn:
        """Cut lines out of the texts that are not exempt."""
        column = TextColumn(texts, self._split)
        for rule in self._line_filters:
            cleaned = list(column.texts)
            for i in np.flatnonzero(rule.may_cut(column)).tolist() if rule.may_cut else range(len(texts)):
                if i not in exempt:
                    cleaned[i] = rule.cut(cleaned[i])
            if any(map(is_not, cleaned, column.texts)):
                column = TextColumn(cleaned, self._split)
        return column

    def _find_reasons(self, column: TextColumn, exempt: Collection[int]) -> list[str | None]:
        """Find for each text of a column the reason why its document is dropped."""
        reasons: list[str | None] = [None if count else EMPTY for count in column.words.counts.tolist()]
        for i in exempt:
            reasons[i] = EMPTY if not column.texts[i] or column.texts[i].isspace() else None
        undecided = column.words.counts > 0
        undecided[list(exempt)] = False
        for rule, threshold in self._text_filters:
            asked = undecided & rule.may_drop(threshold, column) if rule.may_drop else undecided
            for i in np.flatnonzero(asked).tolist():
                if rule.drops(threshold, CleanedText(column.texts[i], column.words[i])):
                    reasons[i] = rule.name
                    undecided[i] = False
        return reasons
