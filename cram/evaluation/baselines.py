"""Baselines for the held-out loss: what simple counts over the training rows reach.

The unigram baseline predicts each token by its frequency:

    p(t) = (count(t) + 1) / (sum of all counts + vocabulary size)

The bigram baseline is for causal models. It predicts each byte from the one before it:

    p(b | a) = (count(a, b) + 1) / (count(a) + 256)

Shards hold tokens, not the text they were made from. For the bigram baseline, training rows and held-out rows are
therefore both read as the tokenizer's decoder writes them: without the characters that the normalizer drops, and for
WordPiece with one space between words. The model predicts no more than that either. The bits are divided by the bytes
of the text itself, as the model's are.

Source of the bigram baseline: Shannon, "Prediction and Entropy of Printed English" (1951) section 2, changed: bytes
instead of letters, and one added to each count.
"""

import json
import re
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from cram.data.special_tokens import padded_vocabulary_size
from cram.evaluation.held_out import HeldOutSet
from cram.objectives.batch import IGNORED

MOST_TOKENS = 4_000_000  # of training rows, 15 to 20 MB of text: a few seconds
TOKENS_AT_ONCE = 1 << 18
BREAK = b"\0"  # stands for a special token

Bytes = npt.NDArray[np.uint8]


class RowReader(Protocol):
    """What the bigram baseline needs of the shards.

    Attributes:
        rows: their number.
        seq_len: tokens of a row.
    """

    rows: int
    seq_len: int

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Read some rows: tokens, and document of each position, both [rows, seq_len]."""
        ...


class VocabularyBytes:
    """The UTF-8 bytes of each token of a vocabulary, as the tokenizer's decoder writes it behind another token.

    A token that stands for bytes, which need not be whole characters, gives these bytes.

    Args:
        special: ids of the special tokens; each gives BREAK.
    """

    def __init__(self, tokenizer: Tokenizer, special: list[int]) -> None:
        ids = range(padded_vocabulary_size(tokenizer))
        ordinary = next(number for number in ids if number not in special)
        prefix = tokenizer.decode([ordinary])
        texts = [tokenizer.decode([ordinary, number]).removeprefix(prefix).encode() for number in ids]
        for number, raw in _raw_bytes(tokenizer).items():
            texts[number] = raw
        for number in special:
            texts[number] = BREAK
        self._sizes = np.array([len(text) for text in texts])
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._bytes = np.frombuffer(b"".join(texts), np.uint8)

    def spell(self, tokens: npt.NDArray[np.integer]) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """Concatenate the bytes of tokens.

        Args:
            tokens: int [n].

        Returns:
            The bytes, and for each byte the index of its token.
        """
        sizes = self._sizes[tokens]
        shift = self._starts[tokens] - (np.cumsum(sizes) - sizes)
        owner = np.repeat(np.arange(len(tokens)), sizes)
        return self._bytes[shift[owner] + np.arange(len(owner))], owner


def _raw_bytes(tokenizer: Tokenizer) -> dict[int, bytes]:
    """By id, the bytes of tokens that stand for bytes: all of a byte-level vocabulary, `<0x41>` in others.

    Decoded one by one, each part of a character would become a replacement character of three bytes.
    """
    description = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else {}
    kinds = {decoder["type"] for decoder in [description, *description.get("decoders", [])] if "type" in decoder}
    vocabulary = tokenizer.get_vocab()
    if "ByteLevel" in kinds:
        letters = _byte_letters()
        return {
            number: bytes(letters[letter] for letter in token)
            for token, number in vocabulary.items()
            if letters.keys() >= set(token)
        }
    if "ByteFallback" in kinds:
        matches = {number: re.fullmatch("<0x([0-9A-F]{2})>", token) for token, number in vocabulary.items()}
        return {number: bytes.fromhex(match[1]) for number, match in matches.items() if match}
    return {}


def _byte_letters() -> dict[str, int]:
    """The byte of each letter of a byte-level vocabulary: printable Latin-1 its own code, the others in order."""
    letters = sorted(ByteLevel.alphabet())
    latin = {letter: ord(letter) for letter in letters if ord(letter) < 256}
    other_bytes = sorted(set(range(256)) - set(latin.values()))
    return latin | dict(zip(letters[len(latin) :], other_bytes, strict=True))


def count_byte_pairs(
    rows: RowReader, vocabulary: VocabularyBytes, most_tokens: int = MOST_TOKENS
) -> npt.NDArray[np.int64]:
    """Count how often each byte follows each other byte.

    Args:
        most_tokens: about so many tokens are read, in rows that are spread evenly over all.

    Returns:
        int64 [256, 256], the first byte first.
    """
    number = min(rows.rows, max(1, most_tokens // rows.seq_len))
    indices = np.linspace(0, rows.rows - 1, number).astype(np.int64)
    counts = np.zeros(1 << 16, np.int64)
    step = max(1, TOKENS_AT_ONCE // rows.seq_len)
    for begin in range(0, number, step):
        tokens, _ = rows.read(indices[begin : begin + step])
        text, _ = vocabulary.spell(tokens.ravel())
        counts += np.bincount(text[:-1].astype(np.int64) << 8 | text[1:], minlength=1 << 16)
    counts[0] = 0  # a break behind a break is padding, or one document's end and the next one's beginning
    return counts.reshape(256, 256)


def bigram_bits_per_byte(rows: RowReader, held_out: HeldOutSet, tokenizer: Tokenizer, special: list[int]) -> float:
    """The bigram baseline: bits per byte of the held-out text that a causal model predicts.

    Args:
        rows: training rows, whose pairs of bytes are counted.
        special: ids of the special tokens.
    """
    vocabulary = VocabularyBytes(tokenizer, special)
    smoothed = count_byte_pairs(rows, vocabulary) + 1.0
    bits = -np.log2(smoothed / smoothed.sum(axis=1, keepdims=True))
    text, owner = vocabulary.spell(held_out.tokens.numpy().ravel())
    # The last position of a row is never predicted, so shifting the flat array by one does not mix rows.
    predicted = np.roll((held_out.labels != IGNORED).numpy().ravel(), 1)[owner]
    previous = np.roll(text, 1)
    return float(bits[previous, text][predicted].sum()) / max(held_out.predicted_bytes, 1)


def unigram_nats(counts: npt.NDArray[np.integer], labels: torch.Tensor) -> float:
    """The unigram baseline: nats per predicted token.

    Args:
        counts: how often each id stands in the training rows.
        labels: of the held-out rows.
    """
    predicted = labels[labels != IGNORED].numpy()
    smoothed = counts.astype(np.float64) + 1.0
    return float(-np.log(smoothed[predicted] / smoothed.sum()).mean())
