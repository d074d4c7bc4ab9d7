"""The rows of an update, as methods that select rows take them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cram.training.gradients import choice_seed, nats_per_row
from cram.training.session import Session


class SessionRows:
    """A `cram.methods.method.RowSource` of a run: the loader, and the model as it is.

    Args:
        session: the run.
        progress: of the update.
    """

    def __init__(self, session: Session, progress: float) -> None:
        self._session, self._progress = session, progress
        self.micro_rows = session.state.micro_rows
        self.seed = choice_seed(session, "selection")

    @property
    def rows_left(self) -> int:
        """Rows that can still be taken."""
        return self._session.parts.loader.rows_left

    def take(self, n: int) -> Any:
        """Take the next n rows; the time is booked as waiting for data."""
        with self._session.clock.account("waiting"):
            return self._session.parts.loader.next(n, self._progress)

    def join(self, parts: Sequence[Any]) -> Any:
        """Join rows that were taken."""
        return type(parts[0]).join(parts)

    def restore(self, tokens: Any, documents: Any, index: Any, epoch: Any) -> Any:
        """Make rows of arrays that a method has kept."""
        return self._session.parts.loader.restore(tokens, documents, index, epoch)

    def nats_per_row(self, rows: Any) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
        """Compute the nats of each row, fp32 (rows,), and the number of its predicted tokens, without gradients."""
        return nats_per_row(self._session, rows, self._progress)
