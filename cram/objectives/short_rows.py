"""Rows that are cut into shorter ones in the first part of the budget: attention costs less, and contexts are short.

Source: arXiv:1810.04805 appendix A.2 (sequences of 128 tokens before sequences of 512), changed: the same rows are cut,
so that an update keeps its tokens. A document that is cut is continued as another one. Floating-point operations are
still counted as those of whole rows, a few percent too many where attention is a small part.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cram.config.objective import ObjectiveConfig
from cram.objectives.batch import Batch, PackedRows
from cram.objectives.objective import Objective, Setting


class ShortRows(Objective):
    """Cuts the rows of another objective's batches while progress is below `objective.short_share`.

    What is predicted stays the same, because slots and labels count positions through all rows.

    Args:
        config: the keys `objective.*`, where `short_rows` is set.
        setting: vocabulary, row length and seed.
        objective: makes the batches and their loss.
    """

    def __init__(self, config: ObjectiveConfig, setting: Setting, objective: Objective) -> None:
        super().__init__(config, setting)
        assert config.short_rows is not None
        self._length = config.short_rows
        self._objective = objective
        self.phases = tuple(sorted({*objective.phases, config.short_share}))

    def prepare(self, rows: PackedRows, progress: float) -> Batch:
        """Make the batch of the other objective, and cut its rows in the first part of the budget."""
        batch = self._objective.prepare(rows, progress)
        if progress >= self.config.short_share:
            return batch
        return replace(batch, inputs=self._cut(batch.inputs), documents=self._cut(batch.documents))

    def _cut(self, values: Tensor) -> Tensor:
        """Cut rows: (rows, seq_len, ...) to (rows * seq_len / length, length, ...)."""
        return values.reshape(-1, self._length, *values.shape[2:])

    def rows_joined(self, progress: float) -> int:
        """See `Objective.rows_joined`."""
        return self._objective.rows_joined(progress)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """See `Objective.loss`."""
        return self._objective.loss(model, batch)

    def sampled_loss(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        """See `Objective.sampled_loss`."""
        return self._objective.sampled_loss(model, batch, generator)

    def nats_per_row(self, model: Any, batch: Batch) -> Tensor:
        """Compute the summed nats of each row before it was cut, fp32 (rows,), without gradients."""
        return self._objective.nats_per_row(model, batch).view(-1, self._pieces(batch)).sum(1)

    def predicted_per_row(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Count the predicted tokens of each row before it was cut: int64 [rows]."""
        counts: npt.NDArray[np.int64] = self._objective.predicted_per_row(batch).reshape(-1, self._pieces(batch)).sum(1)
        return counts

    def _pieces(self, batch: Batch) -> int:
        return self.setting.seq_len // batch.inputs.shape[1]

    def values(self, progress: float) -> dict[str, str]:
        """Describe what the other objective changes, and the length of the rows."""
        length = self._length if progress < self.config.short_share else self.setting.seq_len
        return self._objective.values(progress) | {"rows": f"{length} tokens"}

    def scheduled(self, progress: float) -> dict[str, float]:
        """See `Objective.scheduled`."""
        return self._objective.scheduled(progress)

    def begin_update(self, update: int) -> None:
        """See `Objective.begin_update`."""
        self._objective.begin_update(update)

    def end_update(self, update: int) -> None:
        """See `Objective.end_update`."""
        self._objective.end_update(update)

    def state_tensors(self) -> dict[str, Tensor]:
        """See `Objective.state_tensors`."""
        return self._objective.state_tensors()

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """See `Objective.load_state_tensors`."""
        self._objective.load_state_tensors(tensors)
