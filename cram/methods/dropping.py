"""Layer dropping: each micro-batch leaves out blocks at random, the upper ones more often."""

import math
from typing import Any

import numpy as np

from cram.config.methods import DroppingConfig
from cram.methods.method import Method


class Dropping(Method):
    """Leaves out block i of L with probability i / L * (1 - share).

        share = theta + (1 - theta) * exp(-gamma * progress)

    A block that is left out passes its input on. Nothing is scaled for it, and evaluation computes all blocks.

    Source: arXiv:2010.13369 (progressive layer dropping) as arXiv:2307.06440 uses it, changed: progress instead of the
    share of the updates.

    Args:
        config: the keys `dropping.*`.
        seed: of the run; each micro-batch has a seed of its own, which this one is part of.
    """

    name = "dropping"

    def __init__(self, config: DroppingConfig, seed: int) -> None:
        assert config.theta is not None
        self._theta, self._gamma = config.theta, config.gamma

    def share(self, progress: float) -> float:
        """Share of the micro-batches that the last block takes part in."""
        return self._theta + (1.0 - self._theta) * math.exp(-self._gamma * progress)

    def depth(self, model: Any, progress: float, seed: int) -> None:
        """Draw the blocks that the next micro-batch computes."""
        blocks = model.depth
        dropped = np.arange(1, blocks + 1) / blocks * (1.0 - self.share(progress))
        draws = np.random.Generator(np.random.Philox(seed)).random(blocks)
        model.active = np.flatnonzero(draws >= dropped).tolist()

    def passes(self, layers: int) -> list[tuple[str, int]]:
        """Training passes of any number of blocks."""
        return [("training", blocks) for blocks in range(1, layers + 1)]

    def values(self, progress: float) -> dict[str, str]:
        """Describe how often the last block takes part at some progress."""
        return {"dropping": f"last block in {self.share(progress):.0%} of the passes"}

    def scheduled(self, progress: float) -> dict[str, float]:
        """The share of the passes in which the last block takes part, at some progress."""
        return {"last_block_share": self.share(progress)}
