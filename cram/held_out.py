"""Held-out evaluation: fixed documents, fixed masks, the same figures from anybody who repeats it.

15% of the ordinary tokens of each row are hidden, all behind [MASK], chosen by a hash of the document's
text. A row holds one document or one window of it, so stock classes that know no packing agree.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cram.errors import CramError
from cram.objectives.masked import IGNORED, choose_slots, mix

BATCH_ROWS = 64
HELD_OUT_FIGURES = ("nats_per_token", "bits_per_masked_byte", "accuracy", "predicted_tokens")


class HeldOutDocument(Protocol):
    """A document with the sha256 of its text, in hex."""

    @property
    def text(self) -> str: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class HeldOutSet:
    """Rows ready for evaluation.

    tokens, inputs, labels: int64 [rows, seq_len]; `inputs` with [MASK] put in, `labels` IGNORED where
    nothing is predicted. documents: int32 [rows, seq_len], 0, padding 1.
    masked_bytes: UTF-8 bytes of the text behind the hidden tokens.
    """

    tokens: torch.Tensor
    inputs: torch.Tensor
    labels: torch.Tensor
    documents: torch.Tensor
    masked_bytes: int

    def to_bytes(self) -> bytes:
        """The rows as a safetensors file, for anybody who wants to repeat the evaluation."""
        tensors = {name: getattr(self, name) for name in ("tokens", "inputs", "labels", "documents")}
        return save(tensors, metadata={"masked_bytes": str(self.masked_bytes)})

    @classmethod
    def from_file(cls, path: Path) -> "HeldOutSet":
        """Read back what `to_bytes` gave. Errors: CramError for a damaged file."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                return cls(**tensors, masked_bytes=int(file.metadata()["masked_bytes"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CramError(f"{path}: not a readable file of held-out rows ({error}). Run cram.train again.") from None


def make_held_out(
    documents: Iterable[HeldOutDocument], tokenizer: Any, special: list[int], pad_id: int, mask_id: int,
    seq_len: int, max_tokens: int, rate: float,
) -> HeldOutSet:  # fmt: skip
    """Tokenize, window and mask held-out documents, in the order given, up to `max_tokens` positions.

    Errors: CramError where no token is left to predict.
    """
    if not 0.0 < rate <= 1.0:
        raise CramError(f"evaluation.mask_rate={rate} is no share of the tokens: give more than 0, at most 1.")
    max_rows = max(1, max_tokens // seq_len)
    tokens, sizes, keys = _windows(documents, tokenizer, pad_id, seq_len, max_rows)
    maskable = ~np.isin(tokens, special)
    positions, used = choose_slots(maskable, keys, rate, math.ceil(rate * seq_len))
    hidden = np.zeros_like(maskable)
    np.put_along_axis(hidden, positions, used, axis=1)
    if not hidden.any():
        raise CramError("the held-out text holds no token to predict. Give more text, or raise data.held_out.")
    return HeldOutSet(
        tokens=torch.from_numpy(tokens),
        inputs=torch.from_numpy(np.where(hidden, mask_id, tokens)),
        labels=torch.from_numpy(np.where(hidden, tokens, IGNORED)),
        documents=torch.from_numpy((tokens == pad_id).astype(np.int32)),
        masked_bytes=int(sizes[hidden].sum()),
    )


def _windows(
    documents: Iterable[HeldOutDocument], tokenizer: Any, pad_id: int, seq_len: int, max_rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one window each: token ids and their UTF-8 sizes, int64 [rows, seq_len]; keys, uint64 [rows]."""
    tokens, sizes, keys = [], [], []
    tokenizer.encode_special_tokens = True  # as in training, a "[PAD]" that a document writes is text, no padding
    for document in documents:
        encoding = tokenizer.encode(document.text)
        lengths = [len(document.text[begin:end].encode()) for begin, end in encoding.offsets]
        start = np.frombuffer(bytes.fromhex(document.hash)[:8], "<u8")
        for window, begin in enumerate(range(0, len(encoding.ids), seq_len)):
            pad = seq_len - len(encoding.ids[begin : begin + seq_len])
            tokens.append(encoding.ids[begin : begin + seq_len] + [pad_id] * pad)
            sizes.append(lengths[begin : begin + seq_len] + [0] * pad)
            keys.append(mix(start ^ np.uint64(window))[0])
        if len(tokens) >= max_rows:
            break
    if not tokens:
        raise CramError("there is no held-out document. Give more text, or raise data.held_out.")
    return np.array(tokens[:max_rows]), np.array(sizes[:max_rows]), np.array(keys[:max_rows], np.uint64)


@torch.no_grad()
def evaluate(model: Any, rows: HeldOutSet, device: torch.device) -> dict[str, float]:
    """The HELD_OUT_FIGURES of a model, in fp32."""
    nats = correct = 0.0
    for begin in range(0, len(rows.tokens), BATCH_ROWS):
        part = slice(begin, begin + BATCH_ROWS)
        labels = rows.labels[part].flatten()
        slots = (labels != IGNORED).nonzero().squeeze(1)
        hidden = model(rows.inputs[part].to(device), rows.documents[part].to(device), slots.to(device))
        loss, right = model.head.score(hidden, labels[slots].to(device))
        nats += float(loss.double().sum())
        correct += float(right.sum())
    predicted = int((rows.labels != IGNORED).sum())
    bits = nats / math.log(2) / max(rows.masked_bytes, 1)
    return dict(zip(HELD_OUT_FIGURES, (nats / predicted, bits, correct / predicted, predicted), strict=True))


def unigram_nats(counts: np.ndarray, labels: torch.Tensor) -> float:
    """Nats per predicted token of the training set's token frequencies, one added to each count."""
    wanted = labels[labels != IGNORED].numpy()
    smoothed = counts.astype(np.float64) + 1.0
    return float(-np.log(smoothed[wanted] / smoothed.sum()).mean())
