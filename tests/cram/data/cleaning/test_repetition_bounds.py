from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cram.data.cleaning.columns import TextColumn
from cram.data.cleaning.repetition import is_repetitive
from cram.data.cleaning.repetition_bounds import _count_pairs, may_be_repetitive
from cram.data.cleaning.word_hashes import split_words
from cram.data.text.sources import open_source
from tests.cram.data.cleaning.plain_words import words_of
from tests.cram.data.cleaning.repetitive_texts import repetitive_texts

CORPUS = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "pretrain"


def found(texts: list[str]) -> list[bool]:
    suspects: list[bool] = may_be_repetitive(TextColumn(texts, split_words)).tolist()
    return suspects


@settings(max_examples=200, deadline=None)
@given(st.lists(repetitive_texts(), min_size=1, max_size=4))
def test_no_repetitive_text_is_passed_over(texts: list[str]) -> None:
    suspects = found(texts)
    for text, suspect, words in zip(texts, suspects, TextColumn(texts, split_words).words, strict=True):
        repetitive = is_repetitive(text, words)
        event(f"suspect {suspect}, repetitive {repetitive}")
        assert suspect or not repetitive
    assert [found([text])[0] for text in texts] == suspects, "other texts make no difference"


@pytest.mark.parametrize("texts", [[], [""], ["", " \n ", "..."]])
def test_texts_without_words(texts: list[str]) -> None:
    assert found(texts) == [False] * len(texts)


def test_a_word_that_takes_up_much_of_a_text_is_a_suspect() -> None:
    words = [f"w{number}" for number in range(120)]
    assert found([" ".join(words), " ".join([*words, "x" * 100]), ""]) == [False, True, False]


def test_two_occurrences_of_long_words_are_a_suspect() -> None:
    words = [f"w{number}" for number in range(100, 200)]
    gram = [letter * 14 for letter in "abcd"]
    text = " ".join([*gram, *words[:50], *gram, *words[50:]])
    assert is_repetitive(text, words_of(text))
    assert found([text, " ".join([*gram, *words])]) == [True, False]


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=30), max_size=5))
def test_pairs_are_counted_at_least_as_often_as_they_occur(texts: list[list[str]]) -> None:
    words = TextColumn([" ".join(text) for text in texts], split_words).words
    counts = np.split(_count_pairs(words), words.starts[1:]) if texts else []
    for text, bounds in zip(texts, counts, strict=False):
        pairs = list(pairwise(text))
        assert all(bound >= pairs.count(pair) for bound, pair in zip(bounds, pairs, strict=False))
        assert not len(text) or bounds[-1] == 0, "no pair begins at the last word"


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
def test_few_real_documents_are_suspects() -> None:
    for part in open_source(str(CORPUS / "*.jsonl.zst")).parts:
        texts = [document.text for document in islice(part.documents(), 100)]
        assert np.mean(found(texts)) < 0.1, part.name
