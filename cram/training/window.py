"""Sums over consecutive updates, of which a record of the metrics is made."""

from dataclasses import dataclass

from cram.training.launched import Launched


@dataclass
class Window:
    """Sums over some updates, such as those since the last line of metrics.

    Attributes:
        nats: of the predicted tokens.
        predicted: tokens that were predicted. An update that is not finite adds none, and no nats.
        positions: padding included.
        updates: finite or not.
        seconds: charged for them.
        norm: sum of the norms of the gradients of the finite updates, before clipping.
        finite: number of the finite updates.
        flops: operations of the blocks in their passes.
    """

    nats: float = 0.0
    predicted: int = 0
    positions: int = 0
    updates: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    finite: int = 0
    flops: float = 0.0

    def add(self, launched: Launched, nats: float, norm: float, finite: bool, seconds: float) -> None:
        """Count one update."""
        if finite:
            self.nats += nats
            self.norm += norm
            self.predicted += launched.predicted
            self.finite += 1
        self.positions += launched.positions
        self.flops += launched.flops
        self.updates += 1
        self.seconds += seconds

    def loss(self) -> float | None:
        """Give the nats per predicted token; None where nothing was predicted in a finite update."""
        return self.nats / self.predicted if self.predicted else None
