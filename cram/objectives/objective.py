"""The contract of a training objective: from packed rows to a micro-batch, and from a micro-batch to a loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cram.config.objective import ObjectiveConfig
from cram.distributed.ranks import ALONE, Ranks
from cram.files.tensors import check_tensors
from cram.objectives.batch import IGNORED, Batch, PackedRows


@dataclass(frozen=True)
class Setting:
    """What an objective must know beside its own keys.

    Attributes:
        special: ids of the special tokens, which are never hidden.
        pad_id: id of the token that fills rows.
        mask_id: id of the token shown instead of a hidden one; None if the tokenizer has none.
        vocab_size: number of ids.
        seq_len: length of a row.
        seed: seed of all random choices.
        static_shapes: whether every batch must have the same shapes, as compiled code on a GPU needs. A device that
            runs eagerly is quicker without.
        ranks: that share the rows of an update.
    """

    special: list[int]
    pad_id: int
    mask_id: int | None
    vocab_size: int
    seq_len: int
    seed: int = 0
    static_shapes: bool = False
    ranks: Ranks = ALONE


class Objective:
    """Makes a micro-batch from packed rows on the host, and a loss from the micro-batch on the device.

    A new objective is a subclass with `prepare`, in a file of its own, and one line in `OBJECTIVES` of
    `cram.config.choices`. What `prepare` returns for a row must depend on the row, the seed, the epoch, progress and
    the state tensors only, so that a resumed run sees the same batches.

    Args:
        config: the keys `objective.*`.
        setting: vocabulary, row length and seed.

    Attributes:
        phases: the values of progress at which another kind of batch begins; the first is 0.
    """

    phases: tuple[float, ...] = (0.0,)

    def __init__(self, config: ObjectiveConfig, setting: Setting) -> None:
        self.config = config
        self.setting = setting

    def prepare(self, rows: PackedRows, progress: float) -> Batch:
        """Make the micro-batch of some rows, at a value of progress in [0, 1]; on the host."""
        raise NotImplementedError

    def rows_joined(self, progress: float) -> int:
        """Number of rows of the data that become one row of the model at some progress."""
        return 1

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Sum over the predicted tokens of their negative log-likelihood in nats, an fp32 scalar."""
        hidden = model(batch.inputs, batch.documents, batch.slots, causal=batch.causal)
        nats: Tensor = model.head.loss(hidden, batch.labels)
        return nats

    def sampled_loss(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """Sum of the nats of labels that are drawn from the model's own predictions, an fp32 scalar with gradients.

        Args:
            generator: of the draws, on the device of the batch.
        """
        hidden = model(batch.inputs, batch.documents, batch.slots, causal=batch.causal)
        drawn = model.head.draw(hidden, generator)
        nats: Tensor = model.head.loss(hidden, torch.where(batch.labels == IGNORED, batch.labels, drawn))
        return nats

    @torch.no_grad()
    def nats_per_row(self, model: Any, batch: Batch) -> Tensor:
        """Compute the summed nats of the predicted tokens of each row, fp32 (rows,), without gradients."""
        hidden = model(batch.inputs, batch.documents, batch.slots, causal=batch.causal)
        nats: Tensor = model.head.score(hidden, batch.labels)[0]
        rows, seq_len = batch.inputs.shape
        if batch.slots is None:
            return nats.view(rows, seq_len).sum(1)
        return nats.new_zeros(rows).index_add(0, batch.slots // seq_len, nats)

    def predicted_per_row(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Count the predicted tokens of each row of a batch on the host: int64 [rows]."""
        rows, seq_len = batch.inputs.shape
        places = np.arange(rows * seq_len) if batch.slots is None else batch.slots.numpy()
        return np.bincount(places[(batch.labels != IGNORED).numpy()] // seq_len, minlength=rows).astype(np.int64)

    def begin_update(self, update: int) -> None:
        """Begin an update, of which so many were before, once its rows are chosen."""

    def end_update(self, update: int) -> None:
        """End this update, when its losses are known."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Give what the objective has learned from the updates, as named tensors."""
        return {}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave; an empty mapping forgets everything.

        Raises:
            CramError: for a tensor that does not fit.
        """
        check_tensors(tensors, {})

    def values(self, progress: float) -> dict[str, str]:
        """Describe what the objective changes over the run, at some progress: text by name, to show a user."""
        return {}

    def scheduled(self, progress: float) -> dict[str, float]:
        """Numbers that the objective changes over the run, at some progress, by name, for the metrics."""
        return {}
