import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from cram.data.encoding.word_boundaries import (
    COMPOSING_SIGNS,
    GPT2,
    LAST_BYTES_OF_SPACES,
    LLAMA3,
    QWEN2,
    SIGNS,
    find_boundaries,
)

SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]
awkward = st.sampled_from(
    [*map(chr, range(33)), *SPACES, *"\x7f\u0301éà中😀aS1'.,_(-\u017f", "'s", "'LL", "\r\n", "  "]
)
some_texts = st.lists(awkward | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=14).map("".join)


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def with_parts(
    pre_tokenizer: pre_tokenizers.PreTokenizer | None, *steps: normalizers.Normalizer, model: object = None
) -> Tokenizer:
    tokenizer = Tokenizer(model or models.BPE())  # type: ignore[arg-type]
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if steps:
        tokenizer.normalizer = normalizers.Sequence(list(steps))
    return tokenizer


PRE_TOKENIZERS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "gpt2's pattern": split_by(GPT2),
    "llama3": split_by(LLAMA3),
    "qwen2": split_by(QWEN2),
    "metaspace": pre_tokenizers.Metaspace(prepend_scheme="never"),
    "bert": pre_tokenizers.BertPreTokenizer(),
    "whitespace": pre_tokenizers.Whitespace(),
    "whitespace split": pre_tokenizers.WhitespaceSplit(),
}


def cut(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    boundaries = find_boundaries(tokenizer)
    assert boundaries is not None
    sizes = np.array([len(text.encode()) for text in texts], np.int64)
    folded, starts = boundaries.cut("".join(texts).encode(), np.cumsum(sizes) - sizes)
    words = np.split(np.frombuffer(folded, np.uint8), starts[1:])
    return [word.tobytes().decode() for word in words]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@settings(max_examples=200)
@given(some_texts)
def test_no_piece_of_the_pre_tokenizer_crosses_a_cut(name: str, text: str) -> None:
    split = PRE_TOKENIZERS[name].pre_tokenize_str
    words = cut(with_parts(PRE_TOKENIZERS[name]), [text])
    assert [piece for word in words for piece, _ in split(word)] == [piece for piece, _ in split(text)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bert", ["The", " soldier", "'", "s", " letter", " (", "1", ").", " ", " ", " caf\u00e9"]),
        ("whitespace split", ["The", " soldier's", " letter", " (1).", " ", " ", " caf\u00e9"]),
        ("gpt2", ["The", " soldier", "'s", "\tletter", " (1", ").", "\n", " ", " caf\u00e9"]),
    ],
)
def test_words(name: str, words: list[str]) -> None:
    """A text begins with a word of its own, whatever the text before it ended in."""
    assert cut(with_parts(PRE_TOKENIZERS[name]), ["The soldier's\tletter (1).\n", " ", " caf\u00e9"]) == words


def test_the_last_bytes_of_all_white_space_beyond_ascii() -> None:
    spaces = [chr(code) for code in range(128, 0x110000) if not 0xD800 <= code < 0xE000 and chr(code).isspace()]
    assert {space.encode()[-1] for space in spaces} == set(LAST_BYTES_OF_SPACES)


def test_the_signs_that_compose() -> None:
    characters = [chr(code) for code in range(128, 0x110000) if not 0xD800 <= code < 0xE000]
    marks = [one for one in characters if unicodedata.combining(one)]
    signs = [sign for sign in map(chr, SIGNS) if any(len(unicodedata.normalize("NFC", sign + m)) < 2 for m in marks)]
    assert "".join(signs).encode() == COMPOSING_SIGNS


TOOL = {"special": False, "normalized": False}


@pytest.mark.parametrize(
    "tokenizer",
    [
        with_parts(None),
        with_parts(pre_tokenizers.CharDelimiterSplit("-")),
        with_parts(pre_tokenizers.Metaspace(split=False)),
        with_parts(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
        with_parts(split_by(r"\S+ \S+|\s+")),
        with_parts(pre_tokenizers.BertPreTokenizer(), normalizers.Replace(Regex("a b"), "c")),
        with_parts(pre_tokenizers.BertPreTokenizer(), normalizers.Replace("a", "' '")),
        with_parts(pre_tokenizers.BertPreTokenizer(), normalizers.Strip()),
        with_parts(pre_tokenizers.Metaspace(), normalizers.Prepend("\u2581")),
        with_parts(pre_tokenizers.ByteLevel(), normalizers.NFKC()),
    ],
    ids=lambda tokenizer: f"{tokenizer.normalizer} {tokenizer.pre_tokenizer}"[:90],
)
def test_what_is_not_known_to_be_exact_is_not_cut(tokenizer: Tokenizer) -> None:
    assert find_boundaries(tokenizer) is None


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("a tool", **TOOL),
        AddedToken("<tool>", special=False, normalized=True),
        AddedToken("<tool>", single_word=True, **TOOL),
        AddedToken("<tool>", lstrip=True, **TOOL),
        AddedToken("<tool>", rstrip=True, **TOOL),
    ],
    ids=repr,
)
def test_tokens_that_are_found_first_and_depend_on_their_neighbours(token: AddedToken) -> None:
    tokenizer = with_parts(pre_tokenizers.BertPreTokenizer())
    assert find_boundaries(tokenizer) is not None
    tokenizer.add_tokens([token])
    assert find_boundaries(tokenizer) is None


@pytest.mark.parametrize("content", ["a tool", " tool", "\u00a0\u00a0", "\u3000"])
def test_byte_level_tokens_with_white_space_beside_other_characters(content: str) -> None:
    tokenizer = with_parts(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_tokens([AddedToken(content, special=False, normalized=True)])
    assert find_boundaries(tokenizer) is None


def test_no_cut_falls_into_a_token_that_is_found_first() -> None:
    tokenizer = with_parts(pre_tokenizers.BertPreTokenizer())
    tokenizer.add_tokens([AddedToken("<tool>", **TOOL)])
    assert cut(tokenizer, ["a<tool>, b"]) == ["a<tool>,", " b"]
    tokenizer.add_special_tokens(["<my tool>"])  # nothing is found first in this name, so it must not be cut
    assert find_boundaries(tokenizer) is None
    spaced = with_parts(pre_tokenizers.ByteLevel(add_prefix_space=True))
    spaced.add_tokens([AddedToken("<tool>", **TOOL)])
    assert find_boundaries(spaced) is None


def test_no_word_begins_at_a_sign_that_becomes_a_letter_or_composes() -> None:
    """`Whitespace` counts the underscore as a letter; with U+0338, `<` composes to what BERT's does not split."""
    steps = normalizers.Replace("-", "."), normalizers.Replace(".", "_")
    assert cut(with_parts(pre_tokenizers.Whitespace(), *steps), ["a-b.c,d -"]) == ["a-b.c", ",", "d", " -"]
    steps = normalizers.Replace("-", "<"), normalizers.NFC()
    assert cut(with_parts(pre_tokenizers.BertPreTokenizer(), *steps), ["a-\u0338b,"]) == ["a-\u0338b", ","]
    assert cut(with_parts(pre_tokenizers.Whitespace(), normalizers.Replace("``", '"')), ["a``b"]) == ["a", "``", "b"]
