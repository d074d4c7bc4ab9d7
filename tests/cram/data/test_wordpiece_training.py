"""Training on distinct words gives the tokenizer.json that training on the whole text gives, byte for byte."""

import json
import random
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cram.config.data import WordPieceConfig
from cram.data.text.sources import open_source
from cram.data.wordpiece import _choose_longest_word, make_normalizer, train_tokenizer
from cram.errors import CramError
from tests.cram.data.two_trainings import train_twice

CORPUS = Path(__file__).parents[3].parent / "shared/data/pretrain"
SETTINGS = [
    WordPieceConfig(normalizer=normalizer, lowercase=lowercase, strip_accents=strip)  # type: ignore[arg-type]
    for normalizer, lowercase, strip in product(("bert", "cramming"), (True, False), (True, False))
]
# White space of all kinds, controls, quotation marks, accents (joined and apart), ideographs, forms that are
# compatible with several characters or with white space, a capital that becomes two characters, letters of any script.
SIGNS = (
    " \t\n\r\x0b\x0c\x1c\x1f\x7f\x85\xa0\u1680\u2003\u2028\u3000\ufeff\u200b\ufffd"
    + "`'\"“”,.-_!?§¿。"
    + "\u0301\u0308\u0345"
)
LETTERS = "abcdeABCDE" + "éÅßİΣςſﬁ㎏Ⅸ²漢字가힣กำк" + "\U0001d400\U00020000"
characters = st.sampled_from(SIGNS + LETTERS * 2) | st.characters(exclude_categories=["Cs"])
runs = st.builds(lambda character, length: character * length, characters, st.integers(95, 260))
texts_of_all_kinds = st.lists(
    st.lists(st.text(characters, max_size=12) | runs | st.sampled_from(["``", "''", "``a''", "  "]), max_size=12).map(
        "".join
    ),
    max_size=6,
)


def result(train: Any, texts: list[str], config: WordPieceConfig) -> str:
    """The tokenizer.json, or the message of the error."""
    try:
        return str(train(texts, config).to_str(pretty=True))
    except CramError as error:
        return str(error)


@settings(max_examples=100)
@given(texts_of_all_kinds, st.sampled_from(SETTINGS), st.booleans())
@example(["a" * 101 + " b" * 50], SETTINGS[0], True)
def test_any_text(texts: list[str], config: WordPieceConfig, often: bool) -> None:
    texts = texts * 3 if often else texts
    config = replace(config, vocab_size=64 if often else 192)
    assert result(train_tokenizer, texts, config) == result(train_twice, texts, config)


def prose(alphabet: str, seed: int) -> list[str]:
    """Texts of words that follow Zipf's law, with punctuation."""
    source = random.Random(seed)
    words = ["".join(source.choices(alphabet, k=source.randint(1, 9))) for _ in range(3000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    marks = [" ", " ", " ", " ", ", ", ". ", "\n", "  ", " — ", "-", "'s ", "\u00a0"]
    return ["".join(word + source.choice(marks) for word in source.choices(words, weights, k=200)) for _ in range(60)]


ENGLISH = "etaoinshrdlucmfwypvbgkETAOI"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωΑΒΓΔΣάέήίόύώ"
HANGUL_AND_IDEOGRAPHS = "".join(map(chr, [*range(0xAC00, 0xAC60), *range(0x4E00, 0x4E60)]))


@pytest.mark.parametrize(
    "config", SETTINGS, ids=lambda config: f"{config.normalizer}-{config.lowercase}-{config.strip_accents}"
)
def test_prose_in_several_scripts(config: WordPieceConfig) -> None:
    for alphabet, size in ((ENGLISH, 1024), (GREEK, 512), (HANGUL_AND_IDEOGRAPHS, 1024)):
        texts = prose(alphabet, size)
        sized = replace(config, vocab_size=size)
        assert result(train_tokenizer, texts, sized) == result(train_twice, texts, sized), alphabet


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not here")
def test_real_text() -> None:
    parts = open_source(f"{CORPUS}/*.jsonl.zst").parts
    texts = [document.text for part in parts for document in islice(part.documents(), 5)]
    config = WordPieceConfig(vocab_size=2048)
    assert result(train_tokenizer, texts, config) == result(train_twice, texts, config)
    assert len(json.loads(result(train_tokenizer, texts, config))["model"]["vocab"]) == 2048


@pytest.mark.parametrize("spaces", [0, 40, 2_000])
def test_the_whole_texts_are_read_only_if_their_white_space_decides(spaces: int) -> None:
    """101 of about 10,100 characters are in a long run, so that 40 characters of white space make the difference."""
    words = [("a" * 101, 1), ("b" * 10, 998)]
    text = "a" * 101 + "b" * 9980 + " " * spaces
    read: list[str] = []

    def texts() -> Any:
        read.append(text)
        yield text

    assert _choose_longest_word(words, spaces, texts()) == (256 if len(text) < 10_100 else 100)
    assert bool(read) == (spaces > 0)


def test_runs_of_spaces_that_a_normalizer_shortens_do_not_count() -> None:
    config = WordPieceConfig(vocab_size=64, normalizer="cramming")
    words = [first + second + first for first, second in product("abcdefghij", repeat=2)]
    texts = ["ab" * 55 + " " * 40_000 + " ".join(words * 20)]
    assert len(make_normalizer(config).normalize_str(texts[0])) < 11_000 < len(texts[0])
    assert result(train_tokenizer, texts, config) == result(train_twice, texts, config)
    assert '"max_input_chars_per_word": 256' in result(train_twice, texts, config)
