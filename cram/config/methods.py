"""The keys of the methods of the literature. A method is off unless its first key is set."""

from dataclasses import dataclass
from typing import Literal

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


@dataclass
class CurriculumConfig:
    """The keys `curriculum.*`: rows are drawn from the easiest ones, of which there are more and more."""

    competence: Literal["none", "linear", "sqrt"] = key(
        "none", "how the share of the rows that are drawn from grows (none: no curriculum)"
    )
    start: float = key(0.01, "this share at the start", "share", above=0, most=1)
    length: float = key(0.5, "progress at which all rows are drawn from", "share of the budget", above=0, most=1)

    @property
    def enabled(self) -> bool:
        """Whether there is a curriculum."""
        return self.competence != "none"


@dataclass
class SelectiveConfig:
    """The keys `selective.*`: selective backpropagation, which trains on rows with a high loss more often."""

    beta: float | None = key(
        None,
        "a row is trained on with the probability percentile ** beta, by its loss (null: all rows are)",
        above=0,
        most=100,
    )
    history: int = key(5000, "latest losses that the percentile is taken among", "rows", least=2, most=10**8)

    @property
    def enabled(self) -> bool:
        """Whether rows are selected."""
        return self.beta is not None


@dataclass
class RhoConfig:
    """The keys `rho.*`: RHO-loss, which trains on rows whose loss a reference model can lower most."""

    keep: float | None = key(None, "share of the rows read that are trained on (null: all)", "share", above=0, below=1)
    hold_out: float = key(0.2, "share of the rows that only the reference model is trained on", above=0, below=1)
    reference_share: float = key(
        0.25, "part of the budget that trains the reference model", "share of the budget", above=0, below=1
    )
    reference_layers: int | None = key(
        None, "blocks of the reference model (null: as many as the model has)", "blocks", least=1, most=1000
    )

    @property
    def enabled(self) -> bool:
        """Whether rows are selected."""
        return self.keep is not None


@dataclass
class PruningConfig:
    """The keys `pruning.*`: only a part of the rows is trained on, chosen by the loss of a reference model."""

    keep: float | None = key(None, "share of the rows that are trained on (null: all)", "share", above=0, below=1)
    which: Literal["easy", "middle", "hard", "random"] = key(
        "middle", "rows with the lowest, middle or highest loss; random needs no reference model"
    )
    reference_share: float = key(
        0.1, "part of the budget that trains the reference model", "share of the budget", above=0, below=1
    )
    scoring_share: float = key(
        0.2,
        "part of the budget that may go into the losses of rows; rows without one by then are not trained on",
        "share of the budget",
        above=0,
        below=1,
    )
    reference_layers: int = key(1, "blocks of the reference model", "blocks", least=1, most=1000)

    @property
    def enabled(self) -> bool:
        """Whether rows are left out."""
        return self.keep is not None
