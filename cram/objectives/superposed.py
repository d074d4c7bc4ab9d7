"""Token superposition: bags of s consecutive tokens are read and predicted as one position.

    input of a position = mean of the embeddings of its bag
    loss of a position  = mean over the next bag's tokens t of  -log softmax(logits)[t]

The logits are computed once for a bag. With t_1 the first token of the next bag, E the output weight and h the hidden
state, the loss is -log softmax(logits)[t_1] + h . (E[t_1] - mean of E[t]), where the first term is the usual one.

Source: arXiv:2605.06546, changed: documents that share a row stay apart. A bag belongs to the document of its first
token, which also stands for the bag's tokens of the next document.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck
from cram.objectives.batch import IGNORED, Batch, PackedRows


@dataclass(frozen=True)
class SuperposedBatch(Batch):
    """A causal batch whose positions are bags of s tokens.

    Attributes:
        inputs: int64 [rows, seq_len, s].
        labels: int64 [rows * seq_len], the first token of the next bag; IGNORED where there is none.
        predicted: number of bags that are predicted.
        targets: int64 [rows * seq_len, s], the next bag; any token where the label is IGNORED.
    """

    targets: Tensor = torch.empty(0, dtype=torch.int64)

    def to(self, device: torch.device) -> "SuperposedBatch":
        """Copy the batch to a device, without waiting for the copy."""
        if device.type == "cpu":
            return self
        common = super().to(device)
        return replace(
            self,
            **{field.name: getattr(common, field.name) for field in fields(Batch)},
            targets=self.targets.pin_memory().to(device, non_blocking=True),
        )


def superpose(rows: PackedRows, size: int, pad_id: int) -> SuperposedBatch:
    """Make a batch of bags. `size` rows become one, side by side.

    Args:
        rows: their number need not be a multiple of `size`; the last row of the batch is filled up with padding.
        size: tokens of a bag. It divides the length of a row.
        pad_id: id of the token that fills rows.
    """
    count, seq_len = rows.tokens.shape
    joined = -(-count // size)
    tokens = _join(rows.tokens, joined * size, pad_id)
    # Numbers that differ between the rows that stand side by side.
    numbers = np.arange(joined * size, dtype=np.int32)[:, None] % size * (seq_len + 1)
    documents = _join(rows.documents, joined * size, 0) + numbers
    bags, owners = fold(tokens, documents, size)
    bags, owners = bags.reshape(joined, seq_len, size), owners.reshape(joined, seq_len)
    follows = np.zeros((joined, seq_len), np.bool_)
    follows[:, :-1] = (owners[:, 1:] == owners[:, :-1]) & (bags[:, 1:, 0] != pad_id)
    targets = np.roll(bags, -1, axis=1).reshape(-1, size)
    labels = np.where(follows.ravel(), targets[:, 0], IGNORED)
    return SuperposedBatch(
        inputs=torch.from_numpy(bags),
        documents=torch.from_numpy(owners),
        labels=torch.from_numpy(labels),
        predicted=int(np.count_nonzero(follows)),
        causal=True,
        targets=torch.from_numpy(np.ascontiguousarray(targets)),
    )


def fold(
    tokens: npt.NDArray[np.integer], documents: npt.NDArray[np.integer], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Fold rows into bags; the first token of a bag stands for its tokens of other documents.

    Args:
        tokens: int [rows, seq_len], and `documents`: int [rows, seq_len], the document of each position.
        size: tokens of a bag, which divides the length of a row.

    Returns:
        bags: int64 [rows, seq_len / size, size]. documents: int32 [rows, seq_len / size], of each bag's first token.
    """
    bags = tokens.reshape(len(tokens), -1, size).astype(np.int64)
    owners = documents.reshape(bags.shape)
    bags = np.where(owners == owners[..., :1], bags, bags[..., :1])
    return bags, np.ascontiguousarray(owners[..., 0], np.int32)


def superposed_loss(model: Any, batch: SuperposedBatch) -> Tensor:
    """Sum over the predicted bags of the mean nats of their tokens, an fp32 scalar."""
    hidden = model.head.transform(model(batch.inputs, batch.documents, None, causal=True))
    weight, bias = model.head.output_weight, model.head.bias
    nats: Tensor = ck.linear_cross_entropy(hidden, weight, batch.labels, bias=bias, reduction="sum")
    chosen = F.embedding(batch.targets, weight).float()
    others = (hidden.float() * (chosen[:, 0] - chosen.mean(1))).sum(-1)
    if bias is not None:
        of_target = bias[batch.targets].float()
        others = others + of_target[:, 0] - of_target.mean(1)
    return nats + torch.where(batch.labels == IGNORED, 0.0, others).sum()


def _join(values: npt.NDArray[np.integer], rows: int, filler: int) -> npt.NDArray[np.integer]:
    """Append rows of a filler until there are `rows`."""
    return np.pad(values, ((0, rows - len(values)), (0, 0)), constant_values=filler)
