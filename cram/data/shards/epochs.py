"""Which rows an epoch has, and in which order."""

import numpy as np
import numpy.typing as npt

from cram.data.shards.order import OrderKind, open_order
from cram.data.shards.shards import ShardSet
from cram.errors import CramError


def count_epoch_rows(shards: ShardSet, subset_tokens: int | None) -> int:
    """Count the rows that are trained in an epoch: the whole rows of `data.subset_tokens`, one at least, or all.

    Raises:
        CramError: the shards hold fewer tokens.
    """
    if subset_tokens is None:
        return shards.rows
    if subset_tokens > shards.rows * shards.seq_len:
        raise CramError(
            f"data.subset_tokens={subset_tokens:,}: the data has {shards.rows * shards.seq_len:,} tokens. "
            "Lower it, or give more text (data.source=, data.tokens=)."
        )
    return max(1, subset_tokens // shards.seq_len)


class EpochOrders:
    """The numbers of the rows of each epoch, in training order.

    Where an epoch has fewer rows than the shards, they are those that a shuffled first epoch begins with.

    Args:
        shards: where the rows are.
        kind: `data.order`.
        seed: of the shuffled orders.
        rows: of an epoch.
        chosen: bool [rows of the shards], the rows of an epoch; None for those that are named above.
    """

    def __init__(
        self,
        shards: ShardSet,
        kind: OrderKind,
        seed: int,
        rows: int,
        chosen: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.rows = rows
        self._shards, self._kind, self._seed = shards, kind, seed
        self._chosen = chosen
        self._sorted: npt.NDArray[np.uint32] | None = None

    def epoch(self, epoch: int) -> npt.NDArray[np.uint32]:
        """Return the row numbers of an epoch, counted from 0: uint32 [rows]."""
        if self._sorted is not None:
            return self._sorted
        numbers = open_order(self._shards, self._kind, self._seed, epoch)
        if self.rows < self._shards.rows:
            if self._chosen is None:
                self._chosen = np.zeros(self._shards.rows, np.bool_)
                self._chosen[open_order(self._shards, "shuffled", self._seed, 0)[: self.rows]] = True
            numbers = numbers[self._chosen[numbers]]
        if self._kind != "shuffled":
            self._sorted = numbers
        return numbers
