import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.utils.word_tokenizers import WordTokenizer
from hypothesis import event, given, settings

from cram.config.data import FilterConfig
from cram.data.cleaning.cleaner import Cleaner
from cram.data.cleaning.repetition import NGRAM_WORDS, is_repetitive
from cram.data.cleaning.word_hashes import split_words
from cram.data.text.sources import open_source
from tests.cram.data.cleaning.plain_words import words_of
from tests.cram.data.cleaning.repetitive_texts import repetitive_texts

CORPUS = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "pretrain"


class PlainWords(WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return split_words(text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


GOPHER = GopherRepetitionFilter(language=PlainWords())
GOPHER_LINES = GopherRepetitionFilter(top_n_grams=(), dup_n_grams=(), language=PlainWords())


def gopher_refuses(text: str) -> str:
    """The rule by which datatrove's own filter, with its own thresholds, refuses a text; "" if it does not."""
    gopher = GOPHER if len(split_words(text)) >= NGRAM_WORDS else GOPHER_LINES
    verdict = gopher.filter(Document(text=text.strip() or "an empty text", id=""))
    return "" if verdict is True else verdict[1]


@settings(max_examples=600, deadline=None)
@given(repetitive_texts())
def test_repetition_is_decided_as_by_datatrove(text: str) -> None:
    rule = gopher_refuses(text)
    event(rule)
    assert is_repetitive(text, words_of(text)) == bool(rule), rule


@pytest.mark.parametrize("rule", ["dup_para_frac", "dup_line_char_frac", "top_2_gram", "duplicated_5_n_grams"])
def test_each_kind_of_repetition_is_found(rule: str) -> None:
    source = random.Random(0)
    words = ["".join(source.choices("abcdefghij", k=6)) for _ in range(150)]
    lines = [" ".join(words[start : start + 10]) for start in range(0, 150, 10)]
    text = {
        "dup_para_frac": "\n\n".join(["\n".join(lines), "End.", "End.", "End."]),
        "dup_line_char_frac": "\n".join([*lines[:10], " ".join(words)[:800], " ".join(words)[:800]]),
        "top_2_gram": " ".join(f"{word} click here" for word in words[:100]),
        "duplicated_5_n_grams": " ".join([*words[:100], *words[:30]]),
    }[rule]
    assert gopher_refuses(text) == rule
    assert is_repetitive(text, words_of(text))
    assert [one.reason for one in Cleaner(FilterConfig()).judge([text])] == ["repetition"]
    assert [one.reason for one in Cleaner(FilterConfig(repetition=False)).judge([text])] == [None]


def test_ngrams_of_short_documents_do_not_count() -> None:
    title = "Journal of the American Statistical Association"
    text = f"{title}\nThe {title} is a journal of statistics. The {title} was founded in 1888 in Boston."
    assert not is_repetitive(text, words_of(text))
    lines = "Click here to buy it\nAnd here to sell it\n" * 3
    assert is_repetitive(lines, words_of(lines))


@pytest.mark.parametrize(
    ("n", "percent"), [(2, 20), (3, 18), (4, 16), (5, 15), (6, 14), (7, 13), (8, 12), (9, 11), (10, 10)]
)
def test_ngrams_are_judged_to_the_character(n: int, percent: int) -> None:
    source = random.Random(n)
    words = ["".join(source.choices("abcdefghij", k=6)) for _ in range(n + 90)]
    gram, others = words[:n], words[n:]
    text = " ".join(" ".join(gram + others[start : start + 3]) for start in range(0, 90, 3))
    taken = 30 * len(" ".join(gram)) if n < 5 else 29 * len("".join(gram))
    kept = -(-taken * 100 // percent)  # the least length of which `taken` characters are no more than their share
    for length in (kept - 1, kept):
        padded = text.ljust(length, ".")
        assert len(padded) == length
        assert gopher_refuses(padded) == (
            "" if length == kept else f"top_{n}_gram" if n < 5 else f"duplicated_{n}_n_grams"
        )
        assert is_repetitive(padded, words_of(padded)) == (length < kept)


def test_different_ngrams_that_join_to_the_same_string_are_no_repetition() -> None:
    source = random.Random(0)
    fives, eights = (["".join(source.choices("abcdefghijklm", k=length)) for _ in range(50)] for length in (5, 8))
    again = " ".join(eights[:14])  # so much that datatrove is asked, but too little to be refused
    parts = [
        [f"{five[:2]} {five[2:]}" for five in fives],
        [again],
        [f"{five[:3]} {five[3:]}" for five in fives],
        [again],
    ]
    text = " ".join(word for part in parts for word in part)
    assert gopher_refuses(text)
    assert not is_repetitive(text, words_of(text))


def real_documents() -> Iterator[str]:
    for part in open_source(str(CORPUS / "*.jsonl.zst")).parts:
        few = 3 if Path(part.name).name.startswith(("enwiki_core", "gutenberg")) else 80
        yield from (document.text for document in islice(part.documents(), few))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
def test_real_documents() -> None:
    cleaner = Cleaner(FilterConfig(fix_c1_controls=False))
    kept = 0
    texts = list(real_documents())
    for text in texts:
        assert is_repetitive(text, words_of(text)) == bool(gopher_refuses(text)), text[:200]
        assert cleaner.clean(text) is text, text[:200]
        kept += cleaner.judge([text])[0].reason is None
    assert len(texts) > 500
    assert kept / len(texts) > 0.99
