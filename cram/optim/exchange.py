"""The exchange of an update between ranks: gradients are added up, and updated weights come back."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cram.distributed.ranks import Pending, Ranks
from cram.optim.buckets import Bucket, rows_of


class Exchange:
    """Exchanges gradients and weights of a model between the ranks by buckets, which hold the ones or the others.

    All ranks begin the exchanges of the buckets in the same order, whichever gradients each of them has.

    Args:
        buckets: with a piece for each element of the parameters.
        parameters: of the model, by name.
        ranks: all ranks of the run.
    """

    def __init__(self, buckets: list[Bucket], parameters: dict[str, nn.Parameter], ranks: Ranks) -> None:
        self.buckets, self._parameters, self._ranks = buckets, parameters, ranks
        self._names = [{slot.piece.weight.name for slot in bucket.slots} for bucket in buckets]
        self._begin_update()

    def _begin_update(self) -> None:
        """Forget what is known of the gradients of the update before."""
        self._begun = 0  # buckets whose exchange has begun
        self._pending: list[Pending] = []
        self._arrived: set[str] = set()  # parameters whose gradient the last backward pass has made
        self._had: set[str] = set()  # parameters that have had a gradient on this rank
        # Buckets into which a gradient is still to be copied.
        self._uncopied = Counter(name for names in self._names for name in names)

    @contextmanager
    def overlap(self) -> Iterator[None]:
        """Begin to exchange gradients while the last backward pass of an update, in the `with` block, makes others.

        The buckets are exchanged in the same order on all ranks. `collect` does what is left, so that a rank that has
        no rows for a backward pass need not enter.
        """

        def arrive(name: str) -> None:
            assert name not in self._arrived, f"two backward passes made a gradient of {name} while it was exchanged"
            self._arrived.add(name)
            while self._begun < len(self.buckets) and self._names[self._begun] <= self._arrived:
                self._exchange_next()

        handles = [
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: arrive(name))
            for name, parameter in self._parameters.items()
            if parameter.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _exchange_next(self) -> None:
        """Copy gradients into the next bucket, zeros where there is none, free them, and begin to add them up."""
        bucket = self.buckets[self._begun]
        places, gradients = [], []
        for slot in bucket.slots:
            gradient = self._parameters[slot.piece.weight.name].grad
            if gradient is None:
                slot.values.zero_()
            else:
                places.append(slot.values)
                gradients.append(rows_of(gradient, slot.piece.begin, slot.piece.end))
        _copy(places, gradients)
        for name in self._names[self._begun]:
            self._uncopied[name] -= 1
            parameter = self._parameters[name]
            if parameter.grad is not None:
                self._had.add(name)
                if not self._uncopied[name]:
                    parameter.grad = None
        self._begun += 1
        self._pending += self._ranks.reduce_scatter(bucket.flat)

    def collect(self, failed: bool) -> tuple[bool, set[str]]:
        """Finish the exchange of the gradients: this rank's parts of the buckets are sums over all ranks.

        Args:
            failed: whether this rank could not compute its gradients.

        Returns:
            Whether any rank has failed, so that the sums are worth nothing, and the parameters that have a gradient on
            any rank.
        """
        while self._begun < len(self.buckets):
            self._exchange_next()
        flags = [failed, *(name in self._had for name in self._parameters)]
        any_failed, *had = self._ranks.largest(torch.tensor(flags, dtype=torch.uint8)).tolist()
        self._ranks.finish(self._pending)
        self._begin_update()
        return bool(any_failed), {name for name, flag in zip(self._parameters, had, strict=True) if flag}

    @torch.no_grad()
    def share_weights(self, updated: set[str]) -> None:
        """Give all ranks the weights of the buckets with an updated parameter. Gradients in the buckets are lost."""
        exchanges = []
        for bucket, names in zip(self.buckets, self._names, strict=True):
            if not names.isdisjoint(updated):
                own = [slot for slot in bucket.slots if slot.piece.owner == self._ranks.rank]
                _copy([slot.values for slot in own], [slot.weight for slot in own])
                exchanges.append((bucket, self._ranks.all_gather(bucket.flat)))
        for bucket, pending in exchanges:
            self._ranks.finish(pending)
            others = [slot for slot in bucket.slots if slot.piece.owner != self._ranks.rank]
            _copy([slot.weight for slot in others], [slot.values for slot in others])


def _copy(places: list[Tensor], values: list[Tensor]) -> None:
    if places:
        torch._foreach_copy_(places, values)
