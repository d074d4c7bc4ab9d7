"""Selective backpropagation: rows with a high loss are trained on more often."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cram.config.methods import SelectiveConfig
from cram.errors import CramError
from cram.methods.method import Method, RowSource

POOL = ("tokens", "documents", "index", "epoch")


class Selective(Method):
    """Trains on a row with the probability percentile ** beta, where the percentile is that of its loss.

    Micro-batches are read and scored, and the rows that are kept are pooled, until there are enough for an update. Rows
    that an update does not need wait for the next one. The loss of a row is the mean over its predicted tokens, and its
    percentile is the share of the latest `history` losses, its own included, that are not larger.

    Source: arXiv:1910.00762 as arXiv:2307.06440 uses it, changed: the mean over the predicted tokens, because rows have
    different numbers of them, and a forward pass that computes the predicted positions only.

    Args:
        config: the keys `selective.*`.
        seed: of the run; each update has a seed of its own, which this one is part of.
    """

    name = "selective"

    def __init__(self, config: SelectiveConfig, seed: int) -> None:
        assert config.beta is not None
        self._beta, self._size = config.beta, config.history
        self._history = np.empty(0, np.float32)
        self._pool: Any = None  # rows that were kept and not trained on
        self._stored: dict[str, npt.NDArray[Any]] = {}  # a pool of a checkpoint, until there is a source of rows
        self.reads_ahead = 1.0 + config.beta  # of percentiles that are uniform, 1 / (1 + beta) are kept on average

    def passes(self, layers: int) -> list[tuple[str, int]]:
        """A forward pass over every row."""
        return [("forward", layers)]

    def select(self, source: RowSource, rows: int, progress: float) -> Any:
        """Read rows until enough are kept. At the end of the data, whatever is kept is trained on."""
        if self._stored:
            self._pool, self._stored = source.restore(*(self._stored[name] for name in POOL)), {}
        pool = [] if self._pool is None else [self._pool]
        generator = np.random.Generator(np.random.Philox(source.seed))
        taken = None
        while sum(len(part.tokens) for part in pool) < rows and source.rows_left:
            taken = source.take(min(source.micro_rows, source.rows_left))
            nats, predicted = source.nats_per_row(taken)
            percentiles = self._rank(nats.float().cpu().numpy() / np.maximum(predicted, 1))
            kept = np.flatnonzero(generator.random(len(percentiles)) < percentiles**self._beta)
            if len(kept):
                pool.append(taken[kept])
        if not pool:
            return taken
        pooled = source.join(pool)
        self._pool = pooled[rows:] if len(pooled.tokens) > rows else None
        return pooled[:rows]

    def _rank(self, losses: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Take losses into the history and return their percentiles in it, as shares."""
        self._history = np.concatenate([self._history, losses.astype(np.float32)])[-self._size :]
        ranks = np.searchsorted(np.sort(self._history), losses.astype(np.float32), side="right")
        return np.minimum(ranks, len(self._history)) / len(self._history)

    def state_tensors(self) -> dict[str, Tensor]:
        """The history, and the arrays of the rows that wait."""
        if not len(self._history):
            return {}
        pool = self._stored or ({} if self._pool is None else {name: getattr(self._pool, name) for name in POOL})
        return {
            "history": torch.from_numpy(self._history.copy()),
            **{f"pool/{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in pool.items()},
        }

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for tensors of another method.
        """
        known = {"history", *(f"pool/{name}" for name in POOL)}
        if not set(tensors) <= known or (tensors and len(tensors) not in (1, len(known))):
            raise CramError(f"the tensors {', '.join(sorted(tensors))} are not those of selective backpropagation.")
        self._history = tensors["history"].numpy().copy() if tensors else np.empty(0, np.float32)
        self._pool = None
        self._stored = {name: tensors[f"pool/{name}"].numpy().copy() for name in POOL if f"pool/{name}" in tensors}
