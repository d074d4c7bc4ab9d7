"""The rows of an update: how methods that select rows take them, and which of them each rank computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cram.distributed.shares import places_of_parts
from cram.training.gradients import choice_seed, model_rows, nats_per_row
from cram.training.session import RankSession, UpdateSession


class SessionRows:
    """A `cram.methods.method.RowSource` of a run: the loader, and the model as it is.

    Args:
        session: the run.
        progress: of the update.
    """

    def __init__(self, session: RankSession, progress: float) -> None:
        self._session, self._progress = session, progress
        self.micro_rows = session.step_rows
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


@dataclass(frozen=True)
class TakenRows:
    """The rows of an update.

    rows: those that this rank computes. total: rows of the model that all ranks compute together.
    """

    rows: Any
    total: int


def take_rows(session: RankSession, rows: int, progress: float) -> TakenRows:
    """Take the rows of an update, on every rank the same ones, and keep the share of this rank.

    A method that selects rows sees all of them. Otherwise a rank reads its own rows only.

    Args:
        rows: rows of the model that are wanted.
    """
    parts, ranks = session.parts, session.ranks
    wanted = rows * parts.objective.rows_joined(progress)
    if ranks.alone or parts.methods.claims("select"):
        selected = parts.methods.select(SessionRows(session, progress), wanted, progress)
        total = model_rows(session, selected, progress)
        return TakenRows(selected if ranks.alone else share_out(session, selected, progress), total)
    with session.clock.account("waiting"):
        own = parts.loader.next(wanted, progress, _places(session, wanted, progress))
    return TakenRows(own, rows)


def share_out(session: UpdateSession, rows: Any, progress: float) -> Any:
    """Keep the share of this rank, of rows that all ranks have."""
    return rows if session.ranks.alone else rows[_places(session, len(rows.tokens), progress)]


def _places(session: UpdateSession, rows: int, progress: float) -> npt.NDArray[np.int64]:
    joined, ranks = session.parts.objective.rows_joined(progress), session.ranks
    return places_of_parts(rows, joined, session.state.micro_rows, ranks.rank, ranks.size)
