"""Causal language modelling: each token is predicted from the earlier ones of its document.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019) section 2, changed: documents that
share a row do not see each other, so the first token of each piece of a document is not predicted.
"""

import numpy as np
import numpy.typing as npt
import torch

from cram.objectives.batch import IGNORED, Batch, PackedRows
from cram.objectives.objective import Objective


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
    """Labels every position with the next token. [SEP] is predicted as well, because it ends a document."""

    def prepare(self, rows: PackedRows, progress: float) -> Batch:
        """Label the rows; progress makes no difference."""
        labels = next_tokens(rows.tokens, rows.documents, [self.setting.pad_id]).ravel()
        return Batch(
            inputs=torch.from_numpy(rows.tokens.astype(np.int64)),
            documents=torch.from_numpy(rows.documents),
            labels=torch.from_numpy(labels),
            predicted=int(np.count_nonzero(labels != IGNORED)),
            causal=True,
        )

    def values(self, progress: float) -> dict[str, str]:
        """Describe what is learned, which is the same throughout."""
        return {"objective": "causal"}
