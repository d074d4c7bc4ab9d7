"""The keys of a plan: how `model.size=auto` is planned, and what a plan predicted."""

from dataclasses import dataclass

from cram.config.schema import key

# The keys that `model.size=auto` chooses, unless the words or the recipe set them.
MODEL_KEYS = ("model.layers", "model.width", "model.heads", "model.mlp_width")
PLANNED_KEYS = (
    *MODEL_KEYS,
    "model.rope_theta",
    "model.init_std",
    "model.zero_init",
    "optimizer.lr",
    "optimizer.embedding_lr",
    "optimizer.muon.lr",
    "batch.tokens",
    "batch.start_tokens",
    "checkpoint.interval",
    "evaluation.interval",
)


@dataclass
class PlanConfig:
    """The keys `plan.*`. All but the first two are predictions, which the receipt compares with what came."""

    keep: list[str] = key(
        [],
        "keys that model.size=auto leaves as they are; those that your words or the recipe set are added",
        identifies=False,
    )
    probe_share: float = key(
        0.04,
        "largest share of the budget that model.size=auto may spend on timing shapes",
        "share of the budget",
        above=0,
        most=0.5,
        identifies=False,
    )
    budget: str | None = key(None, "budget that the plan was made for (null: not planned)", identifies=False)
    device: str | None = key(None, "name of the device that the plan was made for", identifies=False)
    tokens_per_second: float | None = key(None, "predicted pace", "tokens/s", above=0, identifies=False)
    update_seconds: float | None = key(
        None, "time of an update, as it was timed for the plan", "seconds", above=0, identifies=False
    )
    tokens: int | None = key(
        None, "predicted tokens that the budget trains on", "tokens", least=0, most=10**15, identifies=False
    )
    updates: int | None = key(None, "predicted number of updates", "updates", least=0, most=10**12, identifies=False)
    nats: float | None = key(
        None, "predicted held-out loss (null: no fit covers the plan)", "nats per token", least=0, identifies=False
    )
