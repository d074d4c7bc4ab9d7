"""The unigram and bigram baselines against counting by hand."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from cram.config.data import WordPieceConfig
from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.special_tokens import SpecialTokens
from cram.data.wordpiece import train_tokenizer
from cram.evaluation.baselines import VocabularyBytes, bigram_bits_per_byte, count_byte_pairs, unigram_nats
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out
from cram.objectives.batch import IGNORED

TEXTS = [
    "The café is old, and the river is wide. Over the bridge a painter walks, while rain falls.",
    "A river and a cat (old) in the café! The painter slept, and the bridge fell over the wide river.",
] * 4
SEQ_LEN = 8


@dataclass
class FakeShards:
    """FakeShards of a shard folder, and which of them were read."""

    tokens: npt.NDArray[np.int64]
    seen: list[int] = field(default_factory=list)
    seq_len: int = SEQ_LEN

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        self.seen += indices.tolist()
        return self.tokens[indices], np.zeros_like(self.tokens[indices])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, WordPieceConfig(vocab_size=64, strip_accents=False))


@pytest.fixture
def rows(tokenizer: Tokenizer) -> FakeShards:
    """Packed rows whose last one is padded."""
    ids = [token for text in TEXTS for token in tokenizer.encode(text).ids]
    ids += [SpecialTokens.of(tokenizer).pad] * (-len(ids) % SEQ_LEN + 3 * SEQ_LEN)
    return FakeShards(np.array(ids).reshape(-1, SEQ_LEN))


def spell(tokenizer: Tokenizer, ids: list[int]) -> list[bytes]:
    """The bytes of each token of a row, by the rules of WordPiece."""
    special = SpecialTokens.of(tokenizer)
    parts = []
    for token in ids:
        if token in special.ids():
            parts.append(b"\0")
        else:
            piece = tokenizer.id_to_token(token)
            space = "" if piece.startswith("##") or piece in ".,!?" else " "
            parts.append((space + piece.removeprefix("##")).encode())
    return parts


def held_out(tokenizer: Tokenizer) -> HeldOutSet:
    document = HeldOutDocument("The old cat is in a café, wide!", "0" * 64)
    return build_held_out([document], tokenizer, SEQ_LEN, EvaluationConfig(tokens=1000), objective="causal")


def test_tokens_are_spelled_as_they_are_decoded(tokenizer: Tokenizer, rows: FakeShards) -> None:
    special = SpecialTokens.of(tokenizer).ids()
    vocabulary = VocabularyBytes(tokenizer, special)
    ids = rows.tokens.ravel()
    text, owner = vocabulary.spell(ids)
    parts = spell(tokenizer, ids.tolist())
    assert text.tobytes() == b"".join(parts)
    assert owner.tolist() == [number for number, part in enumerate(parts) for _ in part]
    ids_of_text = tokenizer.encode(TEXTS[0]).ids
    assert vocabulary.spell(np.array(ids_of_text))[0].tobytes().decode() == "\0 " + tokenizer.decode(ids_of_text) + "\0"


@pytest.mark.parametrize("at_once", [1, 3 * SEQ_LEN, 1 << 18])
def test_pairs_are_counted_as_by_hand(
    tokenizer: Tokenizer, rows: FakeShards, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cram.evaluation.baselines.TOKENS_AT_ONCE", at_once)
    counts = count_byte_pairs(rows, VocabularyBytes(tokenizer, SpecialTokens.of(tokenizer).ids()))
    step = max(1, at_once // SEQ_LEN)
    expected: Counter[tuple[int, int]] = Counter()
    for begin in range(0, rows.rows, step):  # bytes of two separate reads are not a pair
        ids = rows.tokens[begin : begin + step].ravel().tolist()
        expected.update(pairwise(b"".join(spell(tokenizer, ids))))
    del expected[0, 0]
    assert {(int(a), int(b)): int(counts[a, b]) for a, b in zip(*counts.nonzero(), strict=True)} == dict(expected)


def test_a_large_corpus_is_read_in_part_from_its_beginning_to_its_end(tokenizer: Tokenizer, rows: FakeShards) -> None:
    vocabulary = VocabularyBytes(tokenizer, SpecialTokens.of(tokenizer).ids())
    count_byte_pairs(rows, vocabulary, most_tokens=4 * SEQ_LEN)
    assert len(rows.seen) == 4
    assert (rows.seen[0], rows.seen[-1]) == (0, rows.rows - 1)
    rows.seen.clear()
    count_byte_pairs(rows, vocabulary)
    assert rows.seen == list(range(rows.rows))


def test_bits_per_byte_are_those_of_the_smoothed_counts(tokenizer: Tokenizer, rows: FakeShards) -> None:
    special = SpecialTokens.of(tokenizer).ids()
    evaluated = held_out(tokenizer)
    pairs: Counter[tuple[int, int]] = Counter(pairwise(b"".join(spell(tokenizer, rows.tokens.ravel().tolist()))))
    del pairs[0, 0]
    firsts: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    bits = 0.0
    for row in evaluated.tokens.tolist():
        parts = spell(tokenizer, row)
        for place, part in enumerate(parts):
            if place and row[place] not in special:
                for first, second in pairwise(parts[place - 1][-1:] + part):
                    bits -= math.log2((pairs[first, second] + 1) / (firsts[first] + 256))
    baseline = bigram_bits_per_byte(rows, evaluated, tokenizer, special)
    assert baseline == pytest.approx(bits / evaluated.predicted_bytes)
    assert 2.0 < baseline < 8.0


def test_text_that_is_like_the_training_rows_costs_less(tokenizer: Tokenizer, rows: FakeShards) -> None:
    special = SpecialTokens.of(tokenizer).ids()
    evaluated = held_out(tokenizer)
    ordinary = (evaluated.tokens >= len(special)).nonzero()
    drawn = torch.randint(len(special), 64, (len(ordinary),), generator=torch.Generator().manual_seed(0))
    strange = evaluated.tokens.clone()
    strange[ordinary[:, 0], ordinary[:, 1]] = drawn
    other = replace(evaluated, tokens=strange)
    assert bigram_bits_per_byte(rows, evaluated, tokenizer, special) < bigram_bits_per_byte(
        rows, other, tokenizer, special
    )


BYTEWISE = ["plain words", "café naïve", "한 🙂", "tabs\t\n\x00\x7f", "\u201cquoted\u201d \u2014"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=270, special_tokens=["[SEP]"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(BYTEWISE[:2] * 9, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback() -> Tokenizer:
    pieces = ["[SEP]", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_parts_of_characters_are_spelled_as_their_bytes(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    vocabulary = VocabularyBytes(tokenizer, [0])
    for text in BYTEWISE:
        ids = tokenizer.encode(text).ids
        assert vocabulary.spell(np.array(ids))[0].tobytes() == text.encode()


def test_the_unigram_baseline_is_that_of_smoothed_frequencies() -> None:
    labels = torch.tensor([[0, IGNORED, 1], [2, 0, IGNORED]])
    expected = -(2 * math.log(4 / 8) + math.log(1 / 8) + math.log(3 / 8)) / 4
    assert unigram_nats(np.array([3, 0, 2]), labels) == pytest.approx(expected)
