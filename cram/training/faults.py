"""Numerical faults of a run: updates that are left out, rollbacks to a checkpoint, and jumps of the loss."""

from dataclasses import dataclass, field

from cram.config.training import FaultsConfig
from cram.errors import CramError

# Weight of a new window in the running mean of the loss.
_NEW_WINDOW = 0.1


@dataclass
class Rollback:
    """A return to the weights of a checkpoint.

    step: the update at which the run returned. to_step: the update of the checkpoint. lr_factor: what the learning rate
    is multiplied by from then on.
    """

    step: int
    to_step: int
    lr_factor: float


@dataclass
class Spike:
    """A window of updates whose loss is far above the running mean of the windows before.

    step: the latest update of the window. loss, recent: loss of the window and running mean, in nats per token.
    """

    step: int
    loss: float
    recent: float


@dataclass
class Faults:
    """The faults of a run so far. They are part of its checkpoints and of its receipt.

    skipped: updates that were left out because the loss or a gradient was not finite. in_a_row: how many of the latest
    updates were left out without a good one between them. lr_factor: what the learning rate is multiplied by since the
    latest rollback. recent: running mean of the loss, in nats per token; None before the first window.
    """

    skipped: int = 0
    in_a_row: int = 0
    lr_factor: float = 1.0
    recent: float | None = None
    rollbacks: list[Rollback] = field(default_factory=list)
    spikes: list[Spike] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the items of a checkpoint, which are plain mappings, into their classes."""
        self.rollbacks = [Rollback(**item) if isinstance(item, dict) else item for item in self.rollbacks]
        self.spikes = [Spike(**item) if isinstance(item, dict) else item for item in self.spikes]

    def count(self, finite: bool) -> None:
        """Count one update."""
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1

    def record_loss(self, step: int, loss: float, config: FaultsConfig) -> Spike | None:
        """Compare the loss of a window with the running mean. A spike is recorded and returned."""
        recent = loss if self.recent is None else self.recent
        self.recent = recent + _NEW_WINDOW * (loss - recent)
        if loss - recent < config.spike:
            return None
        self.spikes.append(Spike(step, loss, recent))
        return self.spikes[-1]

    def roll_back(self, step: int, to_step: int, config: FaultsConfig) -> Rollback:
        """Record a return to a checkpoint and lower the learning rate.

        Raises:
            CramError: where the run has had as many rollbacks as the config allows.
        """
        if len(self.rollbacks) >= config.rollbacks:
            raise CramError(
                f"the loss is not finite at update {step}, after {len(self.rollbacks)} rollbacks to a checkpoint, with "
                f"{self.lr_factor:g} times the learning rate. Lower optimizer.lr and choose another run=."
            )
        self.lr_factor *= config.lr_factor
        self.in_a_row = 0
        self.rollbacks.append(Rollback(step, to_step, self.lr_factor))
        return self.rollbacks[-1]
