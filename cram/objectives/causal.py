"""Causal language modelling: each token is predicted from those before it in its own document.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019) section 2, changed: documents that
share a row know nothing of each other, so the first token of each piece of a document is not predicted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cram.objectives.masked import IGNORED, Rows


@dataclass(frozen=True)
class CausalBatch:
    """One micro-batch, on the host or a device.

    inputs: int64 [rows, seq_len]. documents: int32 [rows, seq_len].
    labels: int64 [rows * seq_len], the token that follows each position, IGNORED where none is to be predicted.
    predicted: how many labels count.
    """

    inputs: torch.Tensor
    documents: torch.Tensor
    labels: torch.Tensor
    predicted: int

    def to(self, device: torch.device) -> "CausalBatch":
        """The same batch on a device, without waiting for the copy."""
        if device.type == "cpu":
            return self
        inputs, documents, labels = (
            tensor.pin_memory().to(device, non_blocking=True) for tensor in (self.inputs, self.documents, self.labels)
        )
        return CausalBatch(inputs, documents, labels, self.predicted)


def next_tokens(tokens: np.ndarray, documents: np.ndarray, ignored: list[int]) -> np.ndarray:
    """Labels int64 [rows, seq_len]: the next token of the row, IGNORED where it is of another document.

    tokens, documents: int [rows, seq_len]. Tokens of the ids `ignored`, and what follows a row, are no labels either.
    """
    labels = np.full(tokens.shape, IGNORED, np.int64)
    follows = (documents[:, 1:] == documents[:, :-1]) & ~np.isin(tokens[:, 1:], ignored)
    labels[:, :-1][follows] = tokens[:, 1:][follows]
    return labels


class CausalObjective:
    """Turns packed rows into batches whose labels are the tokens that follow; [SEP], a document's end, is one too.

    Args:
        pad_id: id of [PAD], which is never predicted.
    """

    phases: tuple[float, ...] = (0.0,)

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def prepare(self, rows: Rows, progress: float) -> CausalBatch:
        """Shift the rows; on the host, and at any progress alike."""
        labels = next_tokens(rows.tokens, rows.documents, [self._pad_id]).ravel()
        return CausalBatch(
            torch.from_numpy(rows.tokens.astype(np.int64)), torch.from_numpy(rows.documents),
            torch.from_numpy(labels), int(np.count_nonzero(labels != IGNORED)),
        )  # fmt: skip

    def loss(self, model: Any, batch: CausalBatch) -> torch.Tensor:
        """Sum over the predicted tokens of their negative log-likelihood, nats, fp32 scalar."""
        return model.head.loss(model(batch.inputs, batch.documents, causal=True), batch.labels)
