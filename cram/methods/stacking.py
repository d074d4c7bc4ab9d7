"""Layer stacking: the model begins with few blocks, and copies of them are stacked on top."""

from typing import Any

from cram.config.methods import StackingConfig
from cram.errors import CramError
from cram.methods.method import Method


class Stacking(Method):
    """Trains the lowest blocks alone, and doubles their number at given progress until the model has all.

    Block i + n becomes a copy of block i, of n blocks. As published, the state of the optimizer is dropped for all
    parameters then, and the learning rate goes on as if nothing had happened; `stacking.keep_state` copies the state
    with the blocks.

    Source: Gong et al. 2019, "Efficient training of BERT by progressively stacking", as arXiv:2307.06440 uses it,
    changed: progress instead of hours. Where the first block has no attention norm, its copy begins with a gain of 1.

    Args:
        config: the keys `stacking.*`.
        seed: of the run; nothing is random here.
    """

    name = "stacking"

    def __init__(self, config: StackingConfig, seed: int) -> None:
        assert config.layers is not None
        self._first, self._at, self._keep = config.layers, config.at, config.keep_state

    def blocks(self, progress: float) -> int:
        """Number of blocks at some progress."""
        return self._first << sum(progress >= doubling for doubling in self._at)

    def shape(self, model: Any) -> None:
        """Leave the lowest blocks of the model."""
        _grow(model, self._first)

    def depths(self, layers: int) -> list[int]:
        """The numbers of blocks from the first to the last doubling."""
        return [self._first * 2**doubling for doubling in range(len(self._at) + 1)]

    def before_update(self, model: Any, optimizer: Any, progress: float) -> None:
        """Double the blocks, if it is time."""
        while model.depth < self.blocks(progress):
            before = model.depth
            copied = _grow(model, 2 * before)
            optimizer.regroup(model, copied if self._keep else {})

    def values(self, progress: float) -> dict[str, str]:
        """Describe the number of blocks at some progress."""
        return {"blocks": str(self.blocks(progress))}

    def scheduled(self, progress: float) -> dict[str, float]:
        """The number of blocks at some progress."""
        return {"blocks": self.blocks(progress)}

    def step_back(self, model: Any, progress: float) -> None:
        """Refuse progress at which the model has fewer blocks than it has grown to.

        Raises:
            CramError: for such progress.
        """
        if model.depth > self.blocks(progress):
            raise CramError(
                f"stacking.at: the model has grown to {model.depth} blocks, and would have {self.blocks(progress)} "
                f"at {progress:.0%} of the longer budget. Start another run, with init= if its weights shall be used."
            )


def _grow(model: Any, blocks: int) -> dict[str, str]:
    """Give the model so many blocks, each above those that there are a copy of one below."""
    copied: dict[str, str] = model.grow([block % model.depth for block in range(blocks)])
    return copied
