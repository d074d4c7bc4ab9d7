"""Clean and judge documents: the one place that every stage of a preparation asks.

The sample for the tokenizer, the first pass and the second pass all see a document as `Cleaner` leaves it.
"""

from collections.abc import Collection, Iterator, Sequence
from operator import is_not
from typing import Any, NamedTuple

import numpy as np

from cram.config.data import FilterConfig
from cram.data.cleaning.columns import Mask, TextColumn
from cram.data.cleaning.filters import FILTERS, CleanedText, LineFilter, TextFilter, TokenFilter
from cram.data.cleaning.windows_1252 import contains_c1_controls, count_fixed, fix_c1_controls
from cram.data.cleaning.word_hashes import Words, WordSplitter, split_words

BLOCK = 500_000  # characters that are judged at once: enough to share the work, and little enough for a cache
EMPTY = "empty"  # the reason why a document without a word is dropped


class Judgement(NamedTuple):
    """What cleaning and judging a document came to.

    Attributes:
        text: the text without the lines that were cut, and with C1 controls replaced.
        words: the folded words of `text`.
        reason: why the document is dropped: the name of a filter, or `EMPTY`. None: it is kept.
        fixed: how many C1 controls of the document were replaced, also in the lines that were cut.
    """

    text: str
    words: Words
    reason: str | None
    fixed: int = 0


class Cleaner:
    """Applies the filters of `data.filters`; cheap to make and to pickle.

    Args:
        config: which filters are on, and their thresholds.
        split: makes the words that documents are judged by.
    """

    def __init__(self, config: FilterConfig, split: WordSplitter = split_words) -> None:
        self._split = split
        self._fix_c1_controls = config.fix_c1_controls
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

    def fix(self, text: str) -> str:
        """Return the text with C1 controls replaced; the same object if there are none."""
        return fix_c1_controls(text) if self._fix_c1_controls else text

    def clean(self, text: str) -> str:
        """Return the text with C1 controls replaced and without the lines that are cut.

        It is the same object if there are neither.
        """
        text = self.fix(text)
        for rule in self._line_filters:
            text = rule.cut(text)
        return text

    def judge(self, texts: Sequence[str], exempt: Collection[int] = ()) -> list[Judgement]:
        """Clean and judge texts; many at once are faster than one by one.

        Args:
            texts: the documents' texts as they were read.
            exempt: indices of texts from which no lines are cut and which are not filtered. Held-out documents are
                exempt, so that they are the same whatever the filters. An exempt text is dropped only if it is blank.
        """
        is_exempt = np.zeros(len(texts), bool)
        is_exempt[list(exempt)] = True
        blocks = _split_into_blocks(texts)
        return [judgement for block in blocks for judgement in self._judge_block(texts[block], is_exempt[block])]

    def judge_tokens(self, tokens: int, characters: int) -> str | None:
        """Return the name of the token filter that drops a cleaned text, or None.

        Args:
            tokens: how many tokens the text has, without [CLS] and [SEP].
            characters: length of the text.
        """
        return next((rule.name for rule, most in self._token_filters if rule.drops(most, tokens, characters)), None)

    def _judge_block(self, texts: Sequence[str], exempt: Mask) -> Iterator[Judgement]:
        column = TextColumn(texts, self._split)
        fixed_counts = [0] * len(texts)
        if self._fix_c1_controls and contains_c1_controls(column.data):
            column = TextColumn([fix_c1_controls(text) for text in texts], self._split)
            fixed_counts = [count_fixed(text, fixed) for text, fixed in zip(texts, column.texts, strict=True)]
        column = self._cut_lines(column, exempt)
        return map(Judgement, column.texts, column.words, self._find_reasons(column, exempt), fixed_counts)

    def _cut_lines(self, column: TextColumn, exempt: Mask) -> TextColumn:
        """Cut lines out of the texts that are not exempt."""
        for rule in self._line_filters:
            asked = ~exempt & rule.may_cut(column) if rule.may_cut else ~exempt
            cleaned = list(column.texts)
            for i in np.flatnonzero(asked).tolist():
                cleaned[i] = rule.cut(cleaned[i])
            if any(map(is_not, cleaned, column.texts)):
                column = TextColumn(cleaned, self._split)
        return column

    def _find_reasons(self, column: TextColumn, exempt: Mask) -> list[str | None]:
        """Find for each text of a column the reason why its document is dropped."""
        reasons: list[str | None] = [None if count else EMPTY for count in column.words.counts.tolist()]
        for i in np.flatnonzero(exempt).tolist():
            reasons[i] = EMPTY if not column.texts[i] or column.texts[i].isspace() else None
        undecided = ~exempt & (column.words.counts > 0)
        for rule, threshold in self._text_filters:
            asked = undecided & rule.may_drop(threshold, column) if rule.may_drop else undecided
            for i in np.flatnonzero(asked).tolist():
                if rule.drops(threshold, CleanedText(column.texts[i], column.words[i])):
                    reasons[i] = rule.name
                    undecided[i] = False
        return reasons


def _split_into_blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Yield where the blocks of about `BLOCK` characters are that make a column."""
    start = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= BLOCK or end == len(texts):
            yield slice(start, end)
            start, size = end, 0
