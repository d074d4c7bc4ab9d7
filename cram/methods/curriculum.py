"""A curriculum: rows are drawn from the easiest ones, of which there are more and more."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cram.config.methods import CurriculumConfig
from cram.files.tensors import check_tensors
from cram.methods.method import Method


def competence(config: CurriculumConfig, progress: float) -> float:
    """Compute the share of the rows, easiest first, that an update at some progress draws from."""
    done = min(1.0, progress / config.length)
    if config.competence == "linear":
        return config.start + (1.0 - config.start) * done
    return math.sqrt(config.start**2 + (1.0 - config.start**2) * done)


class Curriculum(Method):
    """Draws each row of an update from the easiest rows, uniformly and with replacement.

    Rows are ranked by the mean surprisal of their tokens, which is rarity as published, because packed rows are of one
    length. A row is drawn by the seed and the number of rows drawn before it, so that a resumed run draws the same.

    Source: arXiv:1903.09848, changed: progress instead of the number of updates, and packed rows instead of sentences.

    Args:
        config: the keys `curriculum.*`.
        seed: of the run.
    """

    name = "curriculum"

    def __init__(self, config: CurriculumConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._ranked = np.empty(0, np.int64)
        self._drawn: npt.NDArray[np.uint8] | None = None  # a bit for each rank
        self._loaded: Tensor | None = None

    def order(self, loader: Any) -> None:
        """Let the loader draw rows."""
        self._ranked = loader.ranked()
        self._drawn = np.zeros(-(-len(self._ranked) // 8), np.uint8)
        if self._loaded is not None:
            self._drawn[:] = self._loaded.numpy()
        loader.draw(self.draw)

    def draw(self, first: int, n: int, progress: float) -> npt.NDArray[np.int64]:
        """Draw the numbers of n rows.

        Args:
            first: number of rows that were drawn before.
        """
        allowed = math.ceil(competence(self._config, progress) * len(self._ranked))
        # The generator makes four numbers at each value of its counter, of which a draw takes one.
        raw = np.random.Philox(key=self._seed, counter=first).random_raw(4 * n)[::4]
        ranks = np.minimum((raw * 2.0**-64 * allowed).astype(np.int64), allowed - 1)
        assert self._drawn is not None
        np.bitwise_or.at(self._drawn, ranks // 8, (1 << (ranks % 8)).astype(np.uint8))
        return self._ranked[ranks]

    def repeated_rows(self, taken: int) -> int | None:
        """Count the draws of rows that had been drawn before."""
        return None if self._drawn is None else taken - int(np.unpackbits(self._drawn).sum())

    def state_tensors(self) -> dict[str, Tensor]:
        """A bit for each rank: whether the row was drawn."""
        if self._drawn is None:
            return {} if self._loaded is None else {"drawn": self._loaded}
        return {"drawn": torch.from_numpy(self._drawn.copy())}

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit.
        """
        if tensors and self._drawn is not None:
            check_tensors(tensors, {"drawn": torch.from_numpy(self._drawn)})
        self._loaded = tensors.get("drawn")
        if self._drawn is not None:
            self._drawn[:] = 0 if self._loaded is None else self._loaded.numpy()

    def values(self, progress: float) -> dict[str, str]:
        """Describe the share of the rows that is drawn from at some progress."""
        return {"curriculum": f"the easiest {competence(self._config, progress):.1%} of the rows"}

    def scheduled(self, progress: float) -> dict[str, float]:
        """The share of the rows that is drawn from at some progress."""
        return {"curriculum_share": competence(self._config, progress)}
