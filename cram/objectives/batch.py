"""What passes between loader, objective and model: packed rows in, one micro-batch out."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# The label of a position or slot that is not predicted, as in `torch.nn.functional.cross_entropy`.
IGNORED = -100


class PackedRows(Protocol):
    """What an objective reads of the loader's rows.

    Attributes:
        tokens: int32 [rows, seq_len].
        documents: int32 [rows, seq_len], the document of each position within its row.
        index: int64 [rows], each row's number in the shards.
        epoch: int32 [rows], how often the loader has gone through the data before.
    """

    tokens: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    index: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """One micro-batch, on the host or a device.

    Attributes:
        inputs: int64 [rows, seq_len], the tokens that the model reads.
        documents: int32 [rows, seq_len], the document of each position within its row.
        labels: int64, the token that is to be predicted at each slot, or at each of rows * seq_len positions if there
            are no slots; IGNORED where none is.
        predicted: number of labels that count.
        slots: int64 [slots], indices into rows * seq_len of the positions that are predicted; None for all.
        causal: whether later positions are hidden from every position.
    """

    inputs: Tensor
    documents: Tensor
    labels: Tensor
    predicted: int
    slots: Tensor | None = None
    causal: bool = False

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device, without waiting for the copy."""
        if device.type == "cpu":
            return self

        def send(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return replace(
            self,
            inputs=send(self.inputs),
            documents=send(self.documents),
            labels=send(self.labels),
            slots=None if self.slots is None else send(self.slots),
        )
