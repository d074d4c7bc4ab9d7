"""How hard each piece of the vocabulary is to predict, so that hard pieces are hidden more often.

    weight of a piece = (mean nats of the piece / mean nats of all)^strength, between 1/4 and 4

The mean of a piece is drawn towards that of all as if `PRIOR` predictions had had the mean of all. Of the pieces of a
row, those with larger weights are more likely to be hidden; how many are hidden does not change.

Source: arXiv:2510.20475 (adaptive masked language modelling), changed: nats instead of a smoothed accuracy; weights of
a draw without replacement instead of independent probabilities that are normalised for each row; old predictions count
half at each update of the weights; and one update in `LISTEN` is listened to, because the losses of single tokens cost
a product with the vocabulary more.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cram.distributed.ranks import ALONE, Ranks
from cram.files.tensors import check_tensors
from cram.objectives.batch import IGNORED

LISTEN = 8  # updates from one whose losses are taken to the next
PRIOR = 4.0  # predictions that the mean of all stands for
LARGEST = 4.0  # weight; the smallest is its inverse


class PieceDifficulty:
    """Collects the losses of predicted tokens by piece, and turns them into weights now and then.

    Args:
        vocab_size: number of pieces.
        strength: `objective.difficulty`.
        updates: `objective.difficulty_updates`.
        ranks: whose losses are added up.

    Attributes:
        weights: float32 [vocab_size], how readily each piece is hidden.
        listening: whether the losses of the update in progress are taken.
    """

    def __init__(self, vocab_size: int, strength: float, updates: int, ranks: Ranks = ALONE) -> None:
        self.weights = np.ones(vocab_size, np.float32)
        self.listening = False
        self._strength, self._updates, self._ranks = strength, updates, ranks
        self._nats, self._count = np.zeros(vocab_size), np.zeros(vocab_size)
        self._heard: list[tuple[Tensor, Tensor]] = []

    def begin_update(self, update: int) -> None:
        """Begin an update, of which so many were before."""
        self.listening = update % LISTEN == 0
        self._heard = []

    def record(self, labels: Tensor, nats: Tensor) -> None:
        """Take the losses of a micro-batch.

        Args:
            labels: int64 [slots], IGNORED where nothing is predicted, and `nats`: fp32 [slots].
        """
        self._heard.append((labels, nats.detach()))

    def end_update(self, update: int) -> None:
        """Add up the losses of the update, and make new weights after each `objective.difficulty_updates`."""
        if self.listening:
            heard = np.zeros((2, len(self.weights)))
            for labels, nats in self._heard:
                heard += self._by_piece(labels.cpu().numpy(), nats.cpu().numpy().astype(np.float64))
            self._ranks.sum(torch.from_numpy(heard))
            self._nats += heard[0]
            self._count += heard[1]
        self.listening, self._heard = False, []
        if (update + 1) % self._updates == 0 and self._count.any():
            self.weights = self._weigh()
            self._nats, self._count = self._nats / 2.0, self._count / 2.0

    def _by_piece(self, labels: npt.NDArray[np.int64], nats: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums of the nats and numbers of the predictions, [2, vocab_size]."""
        counts = (labels != IGNORED) & np.isfinite(nats)
        pieces, size = labels[counts], len(self.weights)
        return np.stack([np.bincount(pieces, nats[counts], size), np.bincount(pieces, minlength=size)])

    def _weigh(self) -> npt.NDArray[np.float32]:
        mean = self._nats.sum() / self._count.sum()
        of_pieces = (self._nats + PRIOR * mean) / (self._count + PRIOR)
        weights: npt.NDArray[np.floating] = (of_pieces / max(mean, 1e-9)) ** self._strength
        clipped: npt.NDArray[np.float32] = np.clip(weights, 1.0 / LARGEST, LARGEST).astype(np.float32)
        return clipped

    def spread(self) -> float:
        """Standard deviation of the logarithm of the weights over the pieces."""
        return float(np.log(self.weights).std())

    def state_tensors(self) -> dict[str, Tensor]:
        """The weights, float32, and the sums of nats and predictions that the next ones are made of, float64."""
        arrays: dict[str, npt.NDArray[Any]] = {"weights": self.weights, "nats": self._nats, "count": self._count}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave; an empty mapping forgets everything.

        Raises:
            CramError: for a tensor that does not fit.
        """
        if not tensors:
            self.weights = np.ones_like(self.weights)
            self._nats, self._count = np.zeros_like(self._nats), np.zeros_like(self._count)
            return
        check_tensors(tensors, self.state_tensors())
        self.weights, self._nats, self._count = (tensors[name].numpy().copy() for name in ("weights", "nats", "count"))
