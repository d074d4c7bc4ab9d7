"""The keys of the methods of the literature. A method is off unless its first key is set."""

from dataclasses import dataclass

from cram.config.schema import key


@dataclass
class StackingConfig:
    """The keys `stacking.*`: training begins with few blocks, and copies of them are stacked on top later."""

    layers: int | None = key(
        None,
        "blocks at the start; they are doubled until there are model.layers (null: no stacking)",
        "blocks",
        least=1,
        most=1000,
    )
    at: list[float] = key(
        [0.125, 0.3], "progress of each doubling, in rising order", "share of the budget", above=0, below=1
    )
    keep_state: bool = key(
        False, "copy the state of the optimizer with the blocks, and keep that of the others, instead of dropping all"
    )

    @property
    def enabled(self) -> bool:
        """Whether the model grows."""
        return self.layers is not None


@dataclass
class DroppingConfig:
    """The keys `dropping.*`: each micro-batch leaves out blocks at random, the upper ones more often."""

    theta: float | None = key(
        None,
        "share of the forward passes that the last block takes part in at the end (null: no dropping)",
        above=0,
        most=1,
    )
    gamma: float = key(100.0, "how fast the shares of all blocks fall from 1: by exp(-gamma * progress)", above=0)

    @property
    def enabled(self) -> bool:
        """Whether blocks are left out."""
        return self.theta is not None
