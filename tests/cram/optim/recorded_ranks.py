"""A rank without the others, which notes what it would exchange."""

from collections.abc import Sequence

from torch import Tensor

from cram.distributed.launch import Launch
from cram.distributed.ranks import Pending, Ranks


class RecordedRanks(Ranks):
    """One rank of several, the others of which have no gradients and do not exist."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(Launch(rank, size, rank, size))
        self.reduced: list[Tensor] = []
        self.gathered: list[Tensor] = []

    def reduce_scatter(self, flat: Tensor) -> list[Pending]:
        """Note a buffer of gradients."""
        self.reduced.append(flat)
        return []

    def all_gather(self, flat: Tensor) -> list[Pending]:
        """Note a buffer of weights."""
        self.gathered.append(flat)
        return []

    def largest(self, values: Tensor) -> Tensor:
        """Give the values of this rank."""
        return values

    def finish(self, pending: Sequence[Pending]) -> None:
        """Nothing is under way."""
