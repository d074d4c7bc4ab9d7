import unicodedata
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.data import WordPieceConfig
from cram.data.cleaning.columns import BEYOND_ASCII, TextColumn
from cram.data.cleaning.word_hashes import WordSplitter, serialize_normalizer, split_words
from cram.data.text.sources import open_source
from cram.data.wordpiece import make_normalizer
from proofs.columns import PlainSplitter, make_words
from tests.cram.data.cleaning.plain_words import SPLITTERS

CORPUS = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "pretrain"
JOINTS = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) in ("Mn", "Mc", "Me", "Cf")]
LETTERS = "aBZ09_" + "éİßΣσςKſ\u017f中한²½ⅷﬃＡ" + "\U0001d400\U00010400"
BREAKS = " \n\r\t\x00\x1c\x1f\x7f\x85\xa0\u2028\u3000" + ".,'’—“"
characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from(LETTERS + BREAKS) | st.sampled_from(JOINTS)
texts = st.lists(st.text(characters, max_size=40) | st.text(st.sampled_from("aB1 .\n"), max_size=40), max_size=8)


def assert_plain(texts: list[str], split: WordSplitter) -> None:
    """Compare every array of the column with words that were made one by one."""
    column = TextColumn(texts, split).words
    plain = make_words(list(map(PlainSplitter(split), texts)))
    assert len(column) == len(texts)
    assert column.counts.tolist() == [len(words) for words in plain]
    for number, (found, expected) in enumerate(zip(column, plain, strict=True)):
        assert found.words == expected.words, texts[number]
        assert found.hashes.tolist() == expected.hashes.tolist()
        assert found.characters.tolist() == expected.characters.tolist()
        assert bytes(found.letters) == bytes(expected.letters)
        assert bytes(column[number].letters) == bytes(found.letters)
        assert column[number].words == found.words


@settings(max_examples=400)
@given(texts, st.sampled_from(SPLITTERS))
def test_the_words_of_a_column_are_those_of_each_text(texts: list[str], split: WordSplitter) -> None:
    assert_plain(texts, split)
    assert [words.words for words in TextColumn(texts, split).words] == list(map(split, texts))


def test_every_character_splits_as_by_itself() -> None:
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    pieces = ["".join(f"a{character}B {character}\n" for character in every[start::97]) for start in range(97)]
    assert_plain(pieces, WordSplitter())


@pytest.mark.parametrize("texts", [[], [""], ["", "\n", "..."], ["a", "", "b"], ["—", "a—", "— —"], ["\u0301"]])
def test_texts_without_words(texts: list[str]) -> None:
    for split in SPLITTERS:
        assert_plain(texts, split)


@given(texts)
def test_bytes_are_counted_by_text(texts: list[str]) -> None:
    column = TextColumn(texts, split_words)
    assert column.count(b"aB." + BEYOND_ASCII).tolist() == [
        sum(c in "aB." or c > "\x7f" for c in text) for text in texts
    ]
    assert column.characters.tolist() == list(map(len, texts))
    encoded = [column.data[start : end - 1].decode() for start, end in np.c_[column.starts[:-1], column.starts[1:]]]
    assert encoded == texts


def test_the_words_of_a_chunk_do_not_depend_on_earlier_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.data.cleaning.word_hashes._MOST_FORMS", 3)
    split = WordSplitter()
    chunks = [["naïve café, “one”"], ["“one” Zoë", "œuvre"], ["naïve café, “one”"]]
    for chunk in [*chunks, *chunks]:
        assert_plain(chunk, split)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
@pytest.mark.parametrize("config", [WordPieceConfig(), WordPieceConfig(normalizer="cramming")])
def test_real_documents(config: WordPieceConfig) -> None:
    split = WordSplitter(serialize_normalizer(make_normalizer(config)))
    for part in open_source(str(CORPUS / "*.jsonl.zst")).parts:
        few = 1 if Path(part.name).name.startswith("gutenberg") else 25
        assert_plain([document.text for document in islice(part.documents(), few)], split)
