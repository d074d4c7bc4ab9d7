"""The keys of the objective."""

from dataclasses import dataclass

from cram.config.choices import OBJECTIVES
from cram.config.schema import key


@dataclass
class ObjectiveConfig:
    """The keys `objective.*`: what the model learns to predict."""

    kind: str = key("masked", "what the model learns", choices=OBJECTIVES)
    mask_rate: float = key(
        0.30, "share of the tokens that are predicted, at the start of masking", "share", above=0, most=1
    )
    final_mask_rate: float | None = key(
        0.15, "the same at the end of the budget, linear in between (null: constant)", "share", above=0, most=1
    )
    mask_rate_spread: float = key(
        0.0,
        "spread of the mask rate of rows round that of the schedule: a Beta distribution whose standard deviation "
        "is this share of the largest possible one, sqrt(rate * (1 - rate)) (0: one rate for all rows)",
        "share",
        least=0,
        most=0.5,
    )
    difficulty: float = key(
        0.0,
        "how readily pieces are hidden whose loss is above the mean: their weight is the relative loss to this power, "
        "between 1/4 and 4 (0: all alike)",
        least=0,
        most=4,
    )
    difficulty_updates: int = key(
        200, "updates from one measurement of these losses to the next", "updates", least=1, most=10**6
    )
    causal_share: float = key(
        0.0,
        "length of a first phase that predicts each token from those before it",
        "share of the budget",
        least=0,
        below=1,
    )
    superposition: int | None = key(
        None,
        "tokens whose mean embedding is one position of a first phase, which predicts the next so many; updates read "
        "so many times the rows then (null: no such phase)",
        "tokens",
        least=2,
        most=64,
    )
    superposition_share: float = key(
        0.3, "length of this phase, which is causal", "share of the budget", above=0, below=1
    )
    short_rows: int | None = key(
        None,
        "length that rows are cut to in the first part of the budget, as many tokens an update (null: never cut)",
        "tokens",
        least=1,
        most=2**20,
    )
    short_share: float = key(0.5, "length of this part", "share of the budget", above=0, below=1)
    discriminator_weight: float = key(
        50.0, "weight of the discriminator's mean loss beside the generator's, for objective.kind=replaced", least=0
    )
    replace_mask: float = key(
        1.0, "share of the predicted tokens that the model sees as [MASK]", "share", least=0, most=1
    )
    replace_random: float = key(
        0.0,
        "share of the predicted tokens that it sees as a random token; the others stay visible",
        "share",
        least=0,
        most=1,
    )

    @property
    def held_out(self) -> str:
        """How held-out text is scored: `masked` or `causal`."""
        return OBJECTIVES[self.kind].held_out

    @property
    def begins_causal(self) -> bool:
        """Whether later tokens are hidden at the start."""
        return self.kind == "causal" or self.causal_share > 0

    @property
    def reading(self) -> float:
        """Rows that are read for each row that the model computes, on average over the budget."""
        return 1.0 if self.superposition is None else 1.0 + self.superposition_share * (self.superposition - 1.0)

    @property
    def words(self) -> str:
        """The objective in words: its phases."""
        phases = [(self.causal_share, "causal")] if self.causal_share else []
        if self.superposition:
            phases = [(self.superposition_share, f"bags of {self.superposition} tokens"), *phases]
        return "".join(f"{name} for the first {share:.0%}, then " for share, name in phases) + self.kind
