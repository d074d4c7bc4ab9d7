"""Causal language modelling: each token is predicted from the earlier ones of its document.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019) section 2, changed: documents that
share a row do not see each other, so the first token of each piece of a document is not predicted.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cram.config.objective import ObjectiveConfig
from cram.objectives.batch import IGNORED, Batch, PackedRows
from cram.objectives.objective import Objective, Setting
from cram.objectives.superposed import SuperposedBatch, superpose, superposed_loss


def next_tokens(
    tokens: npt.NDArray[np.integer], documents: npt.NDArray[np.integer], ignored: list[int]
) -> npt.NDArray[np.int64]:
    """Label each position with the next token of its document.

    Args:
        tokens: int [rows, seq_len].
        documents: int [rows, seq_len], the document of each position within its row.
        ignored: ids that are never labels.

    Returns:
        int64 [rows, seq_len], IGNORED where the next token is of another document, of an ignored id, or in another row.
    """
    labels = np.full(tokens.shape, IGNORED, np.int64)
    follows = (documents[:, 1:] == documents[:, :-1]) & ~np.isin(tokens[:, 1:], ignored)
    labels[:, :-1][follows] = tokens[:, 1:][follows]
    return labels


class CausalObjective(Objective):
    """Labels every position with the next token. [SEP] is predicted as well, because it ends a document.

    While progress is below `objective.superposition_share`, positions are bags of `objective.superposition` tokens.
    """

    def __init__(self, config: ObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.phases = (0.0, config.superposition_share) if config.superposition else (0.0,)

    def rows_joined(self, progress: float) -> int:
        """The number of rows that become one: `objective.superposition` in its phase."""
        return (self.config.superposition or 1) if progress < self.phases[-1] else 1

    def prepare(self, rows: PackedRows, progress: float) -> Batch:
        """Label the rows, or put bags of their tokens together."""
        if (size := self.rows_joined(progress)) > 1:
            return superpose(rows, size, self.setting.pad_id)
        labels = next_tokens(rows.tokens, rows.documents, [self.setting.pad_id]).ravel()
        return Batch(
            inputs=torch.from_numpy(rows.tokens.astype(np.int64)),
            documents=torch.from_numpy(rows.documents),
            labels=torch.from_numpy(labels),
            predicted=int(np.count_nonzero(labels != IGNORED)),
            causal=True,
        )

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Sum of the nats of the predicted tokens, or of the mean nats of the predicted bags: an fp32 scalar."""
        return superposed_loss(model, batch) if isinstance(batch, SuperposedBatch) else super().loss(model, batch)

    def values(self, progress: float) -> dict[str, str]:
        """Describe what is learned: single tokens, or bags of them."""
        size = self.rows_joined(progress)
        return {"objective": "causal" if size == 1 else f"bags of {size} tokens"}
