"""What can go wrong with the numbers of a run, and what it answers: leave out, return, record."""

from dataclasses import dataclass, field

from cram.config.training import FaultsConfig
from cram.errors import CramError

# Share of a new window in the mean of the recent ones.
_NEWEST = 0.1


@dataclass
class Rollback:
    """A return to the weights of a checkpoint: at which update, to which, the learning rate's factor from then on."""

    step: int
    to_step: int
    lr_factor: float


@dataclass
class Spike:
    """A window of updates whose loss, in nats, stood far above the mean of the recent windows."""

    step: int
    loss: float
    recent: float


@dataclass
class Faults:
    """The faults of a run so far; part of its checkpoints and of its receipt.

    skipped: updates left out because their loss or a gradient was not finite; in_a_row: of these the latest ones,
    without a good one between. lr_factor: what the learning rate is multiplied by since the last rollback.
    """

    skipped: int = 0
    in_a_row: int = 0
    lr_factor: float = 1.0
    recent: float | None = None
    rollbacks: list[Rollback] = field(default_factory=list)
    spikes: list[Spike] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read back what a checkpoint holds as plain mappings."""
        self.rollbacks = [Rollback(**item) if isinstance(item, dict) else item for item in self.rollbacks]
        self.spikes = [Spike(**item) if isinstance(item, dict) else item for item in self.spikes]

    def count(self, finite: bool) -> None:
        """Count one update."""
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1

    def see(self, step: int, loss: float, config: FaultsConfig) -> Spike | None:
        """Compare a window's loss with the recent ones; a spike is recorded and returned."""
        recent = loss if self.recent is None else self.recent
        self.recent = recent + _NEWEST * (loss - recent)
        if loss - recent < config.spike:
            return None
        self.spikes.append(Spike(step, loss, recent))
        return self.spikes[-1]

    def roll_back(self, step: int, to_step: int, config: FaultsConfig) -> Rollback:
        """Record a return to a checkpoint and lower the learning rate.

        Errors: CramError where there have been as many as the config allows.
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
