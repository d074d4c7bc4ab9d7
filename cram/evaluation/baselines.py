"""A baseline for causal models: each byte predicted from the one before it, by counts over training rows.

    p(b | a) = (count(a, b) + 1) / (count(a) + 256)

Rows hold tokens and not the text they were made of, so training rows and held-out rows alike are read as the
tokenizer's decoder spells them: without what the normalizer drops, and for WordPiece with one space between words. The
model predicts no more than that either. What is predicted and the bytes it is divided by, those of the text itself,
are those of the model's own figure.

Source: Shannon, "Prediction and Entropy of Printed English" (1951) section 2, changed: bytes instead of letters, and
one added to each count.
"""

import json
import re
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from cram.data.special import vocabulary_size
from cram.evaluation.held_out import HeldOutSet
from cram.objectives.batch import IGNORED

MOST_TOKENS = 4_000_000  # of training text, 15 to 20 MB: a few seconds
TOKENS_AT_ONCE = 1 << 18
BREAK = b"\0"  # what a special token is spelled as

Bytes = npt.NDArray[np.uint8]


class Rows(Protocol):
    """What is needed of the shards."""

    rows: int
    seq_len: int

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]: ...


class Spelling:
    """The UTF-8 bytes of each token of a vocabulary, as the tokenizer's decoder writes it behind another token.

    Tokens of bytes, which need not be whole characters, are spelled as these bytes.

    Args:
        special: ids of the special tokens, each of which is spelled as BREAK.
    """

    def __init__(self, tokenizer: Tokenizer, special: list[int]) -> None:
        ids = range(vocabulary_size(tokenizer))
        before = next(number for number in ids if number not in special)
        prefix = tokenizer.decode([before])
        spelled = [tokenizer.decode([before, number]).removeprefix(prefix).encode() for number in ids]
        for number, raw in _raw_bytes(tokenizer).items():
            spelled[number] = raw
        for number in special:
            spelled[number] = BREAK
        self._sizes = np.array([len(part) for part in spelled])
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._bytes = np.frombuffer(b"".join(spelled), np.uint8)

    def spell(self, tokens: npt.NDArray[np.integer]) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """The bytes of tokens int (n), one token's behind the other's, and the token (its place) of each byte."""
        sizes = self._sizes[tokens]
        shift = self._starts[tokens] - (np.cumsum(sizes) - sizes)
        owner = np.repeat(np.arange(len(tokens)), sizes)
        return self._bytes[shift[owner] + np.arange(len(owner))], owner


def _raw_bytes(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of the tokens that stand for bytes, by id: of all in a byte-level vocabulary, of `<0x41>` elsewhere.

    Decoding them one by one would turn each part of a character into a replacement character of three bytes.
    """
    said = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else {}
    kinds = {decoder["type"] for decoder in [said, *said.get("decoders", [])] if "type" in decoder}
    vocabulary = tokenizer.get_vocab()
    if "ByteLevel" in kinds:
        letters = _byte_letters()
        return {
            number: bytes(letters[letter] for letter in token)
            for token, number in vocabulary.items()
            if letters.keys() >= set(token)
        }
    if "ByteFallback" in kinds:
        found = {number: re.fullmatch("<0x([0-9A-F]{2})>", token) for token, number in vocabulary.items()}
        return {number: bytes.fromhex(match[1]) for number, match in found.items() if match}
    return {}


def _byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for: printable Latin-1 for itself, then in order."""
    letters = sorted(ByteLevel.alphabet())
    found = {letter: ord(letter) for letter in letters if ord(letter) < 256}
    others = sorted(set(range(256)) - set(found.values()))
    return found | dict(zip(letters[len(found) :], others, strict=True))


def count_pairs(rows: Rows, spelling: Spelling, most_tokens: int = MOST_TOKENS) -> npt.NDArray[np.int64]:
    """How often each byte follows each, int64 [256, 256], in about `most_tokens` of rows spread evenly over all."""
    wanted = min(rows.rows, max(1, most_tokens // rows.seq_len))
    order = np.linspace(0, rows.rows - 1, wanted).astype(np.int64)
    counts = np.zeros(1 << 16, np.int64)
    step = max(1, TOKENS_AT_ONCE // rows.seq_len)
    for begin in range(0, wanted, step):
        text, _ = spelling.spell(rows.read(order[begin : begin + step])[0].ravel())
        counts += np.bincount(text[:-1].astype(np.int64) << 8 | text[1:], minlength=1 << 16)
    counts[0] = 0  # one break behind another is padding, or a document's end and the next one's beginning
    return counts.reshape(256, 256)


def bigram_bits_per_byte(rows: Rows, held_out: HeldOutSet, tokenizer: Tokenizer, special: list[int]) -> float:
    """Bits for each byte of the held-out text that a causal model predicts, by the pairs of bytes in training rows."""
    spelling = Spelling(tokenizer, special)
    smoothed = count_pairs(rows, spelling) + 1.0
    bits = -np.log2(smoothed / smoothed.sum(axis=1, keepdims=True))
    text, owner = spelling.spell(held_out.tokens.numpy().ravel())
    # A row's last position has no label, so that what is the next token of the row is the next one of all.
    predicted = np.roll((held_out.labels != IGNORED).numpy().ravel(), 1)[owner]
    before = np.roll(text, 1)
    return float(bits[before, text][predicted].sum()) / max(held_out.predicted_bytes, 1)
