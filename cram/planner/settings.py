"""What follows from a shape and a budget: initial weights, learning rates, and how often a run is saved and evaluated.

The figures of short trainings, of up to two million tokens, come from experiments (LOG.md); those of long ones from the
recipes of this project for ten minutes to a day on a GPU.
"""

import math
from typing import Any

from cram.planner.shape import Shape

SHORT_TRAINING = 20_000_000  # tokens; what is below counts as short
CHECKPOINTS = 5  # about so many in a budget
SHORTEST_INTERVAL, LONGEST_INTERVAL = 20.0, 600.0  # seconds between two checkpoints
EVALUATED_OFTEN_FROM = 3600.0  # seconds; a shorter budget is evaluated half as often
EVALUATION_INTERVAL = 0.05  # share of the budget


def initial_std(width: int) -> float:
    """Standard deviation of the initial weights: 0.83 / sqrt(width), which is 0.06 at width 192 and 0.03 at 768.

    From 0.02 a narrow model takes several times as long to begin learning attention.
    """
    return _round(min(0.08, 0.83 / math.sqrt(width)))


def adamw_lr(width: int) -> float:
    """Peak learning rate of AdamW: 2e-3 up to a width of 512, beyond it falling with the root of the width."""
    return _round(2e-3 * min(1.0, math.sqrt(512 / width)))


def embedding_lr(width: int) -> float:
    """Peak learning rate of the embedding: 16e-3 up to a width of 192, beyond it 16e-3 (192 / width)^1.5.

    This is 3.7e-3 at a width of 512 and 2e-3 at 768.
    """
    return _round(16e-3 * min(1.0, (192 / width) ** 1.5))


def muon_lr(batch_tokens: int) -> float:
    """Peak learning rate of Muon: 0.02, and for updates of fewer than 1024 tokens proportional to their tokens.

    Muon's step has the same length however noisy the gradient is, so that small updates need shorter ones.
    """
    return _round(0.02 * min(1.0, batch_tokens / 1024))


def planned_values(shape: Shape, tokens: float, seconds: float | None, begins_causal: bool) -> dict[str, Any]:
    """Give the value of each of `cram.config.plan.PLANNED_KEYS` for a shape.

    Args:
        shape: size of the model and of an update.
        tokens: of the whole training.
        seconds: of the budget; None for a budget in tokens or updates.
        begins_causal: whether the model first learns to predict each token from those before it.
    """
    is_short = tokens < SHORT_TRAINING
    seconds = seconds or SHORTEST_INTERVAL * CHECKPOINTS
    interval = min(max(seconds / CHECKPOINTS, SHORTEST_INTERVAL), LONGEST_INTERVAL)
    return {
        "model.layers": shape.layers,
        "model.width": shape.width,
        "model.heads": shape.heads,
        "model.mlp_width": shape.mlp_width,
        # Low frequencies, which rows of 128 tokens hardly use, let a model learn later which tokens are neighbours.
        "model.rope_theta": 100.0 if is_short else 10_000.0,
        "model.init_std": initial_std(shape.width),
        # Blocks that begin as the identity let a masked model stay longer at the unigram baseline.
        "model.zero_init": begins_causal or not is_short,
        "optimizer.lr": adamw_lr(shape.width),
        "optimizer.embedding_lr": embedding_lr(shape.width),
        "optimizer.muon.lr": muon_lr(shape.batch_tokens),
        "batch.tokens": shape.batch_tokens,
        "batch.start_tokens": None,
        "checkpoint.interval": f"{interval:g}s",
        "evaluation.interval": EVALUATION_INTERVAL * (1 if seconds >= EVALUATED_OFTEN_FROM else 2),
    }


def _round(value: float) -> float:
    """Round to three digits, so that a recipe is readable."""
    return float(f"{value:.3g}")
