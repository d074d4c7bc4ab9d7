"""Whatever the tokenizer and the text, its tokens stand for each byte of the text once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cram.config.data import WordPieceConfig
from cram.data.token_bytes import count_token_bytes, measure_lost_characters
from cram.data.wordpiece import train_tokenizer

TEXTS = [
    "The café is old, and the river is wide. Over the bridge a painter walks, while rain falls.",
    "A river and a cat (old) in the café! The painter slept, and the bridge fell over the wide river.",
    "\u201cquotes\u201d \u2014 it isn't; x = [1, 2]  \n\n\ttabs",
    "한국어 문장은 음절로 쓴다. 문장은 길다.",
] * 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# How Llama 3 cuts a text before its byte-level BPE, shortened.
LLAMA_3 = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(split: pre_tokenizers.PreTokenizer, trim: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    if trim:
        tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), trim_offsets=True)
    return tokenizer


def unigram(normalizer: normalizers.Normalizer | None) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def characters() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2: a mark for spaces, and bytes for characters that it does not know."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return tokenizer


def wordpiece(size: int = 128, **settings: Any) -> Tokenizer:
    return train_tokenizer(TEXTS, WordPieceConfig(vocab_size=size, **settings))


TOKENIZERS = {
    "WordPiece": wordpiece(),
    "WordPiece with case": wordpiece(lowercase=False),
    "WordPiece with accents": wordpiece(strip_accents=False),
    "WordPiece with case and accents": wordpiece(lowercase=False, strip_accents=False),
    "cramming": wordpiece(64, normalizer="cramming"),
    "byte-level BPE": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "byte-level BPE with a space before": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "RoBERTa": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), trim=True),
    "Llama 3": byte_level(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    ),
    "Llama 2": byte_fallback(),
    "Unigram": unigram(None),
    "Unigram, NFKC": unigram(normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])),
    "Unigram, NFD": unigram(normalizers.NFD()),
    "words": words(),
    "characters": characters(),
}

# Ordinary letters, what is several bytes or several code points, and what normalizers drop or replace.
PARTS = [
    *("the ", "river", "café", "cafe\u0301", "Ångström", "\u1112\u1161\u11ab", "한국어", "각", "🙂", "👩‍👩‍👧", "ééé"),
    *("\u201cold\u201d", "\u2014", "``", "''", "ﬁ", "½", "漢字", "ไทย", "\u00ad", "\u200b", "\ufeff", "\x00", "\x07"),
    *("  ", "\n\n", "\t", " \u00a0 ", "\r\n", " ", "[SEP]", "[UNK]", "isn't", "1234567", "%$#", "İ", "ß", "\ufffd"),
]
DRAWN = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=12).map("".join), st.text(st.characters(codec="utf-8"), max_size=20)
)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=DRAWN)
def test_the_bytes_of_the_pieces_are_those_of_the_text(name: str, text: str) -> None:
    encoding = TOKENIZERS[name].encode(text)
    sizes = count_token_bytes(text, encoding.offsets, encoding.special_tokens_mask)
    added = sum(size for size, extra in zip(sizes, encoding.special_tokens_mask, strict=True) if extra)
    assert added == 0
    assert min(sizes, default=0) >= 0
    assert sum(sizes) == (len(text.encode()) if 0 in encoding.special_tokens_mask else 0)


def test_each_byte_belongs_to_the_token_that_ends_at_or_after_it() -> None:
    text = "  Café \t naïve!\n"
    offsets = [(0, 0), (2, 5), (5, 6), (9, 14), (14, 15), (0, 0)]
    sizes = count_token_bytes(text, offsets, [1, 0, 0, 0, 0, 1])
    assert sizes == [0, len("  Caf"), len("é".encode()), len(" \t naïve".encode()), len("!\n"), 0]


@pytest.mark.parametrize(
    ("offsets", "sizes"),
    [
        ([(0, 1), (0, 1), (0, 1), (1, 2)], [3, 0, 0, 1]),  # three parts of one character
        ([(0, 2), (1, 2)], [4, 0]),  # overlapping
        ([(1, 2), (0, 1)], [4, 0]),  # going back
        ([(0, 1)], [4]),  # what follows the last one
        ([(0, 0), (0, 2)], [0, 4]),  # a mark without a character
        ([(0, 9)], [4]),  # beyond the end
    ],
)
def test_offsets_that_overlap_leave_gaps_or_go_back(offsets: list[tuple[int, int]], sizes: list[int]) -> None:
    assert count_token_bytes("한a", offsets, [0] * len(offsets)) == sizes


def test_a_text_without_a_piece_has_no_bytes() -> None:
    assert count_token_bytes(" \n", [(0, 0), (0, 0)], [1, 1]) == [0, 0]
    assert count_token_bytes("", [], []) == []


def lost(name: str, *texts: str) -> float:
    return measure_lost_characters(TOKENIZERS[name], TOKENIZERS[name].token_to_id("[UNK]"), texts)


def test_lost_characters_are_unknown_or_dropped() -> None:
    assert lost("WordPiece", "the river \n and the old cat") == 0.0
    assert lost("WordPiece", "the river 漢 cat") == pytest.approx(1 / 12)
    assert lost("WordPiece", "the cat", "漢漢") == pytest.approx(2 / 8)
    assert lost("cramming", "the river —漢 cat") == pytest.approx(2 / 13)  # no token says that they were there
    assert lost("WordPiece", "cafe\u0301") == pytest.approx(1 / 5)  # an accent of its own
    assert lost("byte-level BPE", "漢 🙂") == lost("characters", "") == lost("words") == 0.0
