"""Clean and judge documents: the one place that every stage of a preparation asks.

The sample for the tokenizer, the first pass and the second pass all see a document as `Cleaner` leaves it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from cram.config.data import FilterConfig
from cram.data.cleaning.filters import FILTERS, CleanedText, LineFilter, TextFilter, TokenFilter
from cram.data.cleaning.word_hashes import Words, WordSplitter, hash_words, split_words

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
        cleaned = [text if index in exempt else self.clean(text) for index, text in enumerate(texts)]
        words = hash_words([self._split(text) for text in cleaned])
        return [
            Judgement(text, text_words, self._find_reason(text, text_words, index in exempt))
            for index, (text, text_words) in enumerate(zip(cleaned, words, strict=True))
        ]

    def judge_tokens(self, tokens: int, characters: int) -> str | None:
        """Return the name of the token filter that drops a cleaned text, or None.

        Args:
            tokens: how many tokens the text has, without [CLS] and [SEP].
            characters: length of the text.
        """
        return next((rule.name for rule, most in self._token_filters if rule.drops(most, tokens, characters)), None)

    def _find_reason(self, text: str, words: Words, exempt: bool) -> str | None:
        if exempt:
            return None if text and not text.isspace() else EMPTY
        if not words.words:
            return EMPTY
        cleaned = CleanedText(text, words)
        return next((rule.name for rule, threshold in self._text_filters if rule.drops(threshold, cleaned)), None)
