"""A small tokenizer, and held-out rows of a few documents."""

import hashlib

import pytest
from tokenizers import Tokenizer

from cram.config.data import WordPieceConfig
from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.wordpiece import train_tokenizer
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out

SEQ_LEN = 16
VOCAB = 64
# The first ones are so short that nothing of them is hidden; the last ones fill several rows.
TEXTS = (
    "a",
    "on",
    "the cat sat on a mat",
    "rain fell over the old towns",
    "café readers slept while rain fell over the towns and the naïve cat sat on a mat",
    "old towns and old readers slept while the rain fell on the café and the mat " * 3,
    "the cat sat while the rain fell over naïve readers and a mat in the old café " * 4,
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of 64 pieces."""
    return train_tokenizer([f"{text} [ mask ] pad" for text in TEXTS] * 3, WordPieceConfig(vocab_size=VOCAB))


@pytest.fixture(scope="session")
def documents() -> list[HeldOutDocument]:
    """Documents shorter and longer than a row."""
    return [HeldOutDocument(text, hashlib.sha256(text.encode()).hexdigest()) for text in TEXTS]


@pytest.fixture
def rows(documents: list[HeldOutDocument], tokenizer: Tokenizer) -> HeldOutSet:
    """Masked rows."""
    return build_held_out(documents, tokenizer, SEQ_LEN, EvaluationConfig())


@pytest.fixture
def causal_rows(documents: list[HeldOutDocument], tokenizer: Tokenizer) -> HeldOutSet:
    """Causal rows."""
    return build_held_out(documents, tokenizer, SEQ_LEN, EvaluationConfig(), objective="causal")
