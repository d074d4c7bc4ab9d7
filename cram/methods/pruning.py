"""Data pruning: only a part of the rows is trained on, chosen by the loss of a small reference model."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cram.config.methods import PruningConfig
from cram.errors import CramError
from cram.methods.beginning import Beginning
from cram.methods.method import Method
from cram.methods.reference_training import ReferenceTraining, mean_nats, split_tensors


class Pruning(Method):
    """Trains on the rows with the lowest, middle or highest loss of a reference model, or on random ones.

    The reference model is trained inside the budget, on random rows of the same data. Then it scores rows in random
    order, each once, until all are scored or the share of the budget for that is spent; the rows are chosen among them.

    Source: arXiv:2309.04564 (pruning by the perplexity of a reference model), changed: the model is small, and training
    and scoring are charged; the loss is the mean over the hidden tokens of a row.

    Args:
        config: the keys `pruning.*`.
        seed: of the run.
    """

    name = "pruning"

    def __init__(self, config: PruningConfig, seed: int) -> None:
        assert config.keep is not None
        self._config, self._keep, self._seed = config, config.keep, seed
        self._reference = ReferenceTraining(config.reference_share, config.reference_layers, seed)
        self._scores = np.empty(0, np.float32)  # in the order in which rows are scored
        self._scored = 0

    def passes(self, layers: int) -> list[tuple[str, int]]:
        """Training and forward passes of the reference model."""
        if self._config.which == "random":
            return []
        return [(kind, self._config.reference_layers) for kind in ("training", "forward", "step")]

    def check(self, rows: int, update_rows: int) -> None:
        """Check that the rows that are kept make an update.

        Raises:
            CramError: if they do not.
        """
        if round(rows * self._keep) < update_rows:
            raise CramError(
                f"pruning.keep={self._keep}: {round(rows * self._keep)} of {rows} rows are kept, and an update needs "
                f"{update_rows}. Give more text, keep more, or lower batch.tokens."
            )

    def start(self, beginning: Beginning) -> bool:
        """Train the reference model for another update, or score another update's worth of rows.

        Raises:
            CramError: the shares of the budget are spent, and too few rows were scored for an update.
        """
        if self._config.which == "random":
            return True
        if not len(self._scores):
            self._scores = np.zeros(len(beginning.numbers), np.float32)
        if not self._reference.train(beginning, beginning.numbers):
            return False
        latest = self._config.reference_share + self._config.scoring_share
        if self._scored == len(self._scores) or beginning.spent >= latest:
            self._check_scored(beginning.update_rows)
            return True
        part = slice(self._scored, self._scored + beginning.update_rows)
        rows = beginning.read(self._shuffle(beginning.numbers)[part])
        self._scores[part] = mean_nats(*self._reference.model.nats_per_row(rows, 1.0))
        self._scored = min(part.stop, len(self._scores))
        return False

    def _check_scored(self, update_rows: int) -> None:
        kept = round(self._scored * self._keep)
        if kept < update_rows:
            raise CramError(
                f"pruning.scoring_share={self._config.scoring_share}: {self._scored} rows were scored before the share "
                f"was spent, {kept} of them are kept, and an update needs {update_rows}. Raise pruning.scoring_share, "
                "or give a larger budget."
            )

    def _shuffle(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.random.Generator(np.random.Philox(key=self._seed)).permutation(numbers)

    def choose(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Choose the rows to train on, in rising order."""
        if self._config.which == "random":
            return np.sort(self._shuffle(numbers)[: round(len(numbers) * self._keep)])
        scored = self._shuffle(numbers)[: self._scored]
        easiest_first = scored[np.argsort(self._scores[: self._scored], kind="stable")]
        kept = round(self._scored * self._keep)
        first = {"easy": 0, "middle": (self._scored - kept) // 2, "hard": self._scored - kept}[self._config.which]
        return np.sort(easiest_first[first : first + kept])

    def order(self, loader: Any) -> None:
        """Train on the chosen rows."""
        loader.keep(self.choose(loader.numbers()))

    def figures(self) -> dict[str, Any]:
        """Give the number of rows that were scored."""
        return {"scored_rows": self._scored}

    def state_tensors(self) -> dict[str, Tensor]:
        """The reference model, and the scores so far."""
        tensors = self._reference.state_tensors()
        if not tensors:
            return {}
        scores = torch.from_numpy(self._scores.copy())
        return tensors | {"scores": scores, "scored": torch.tensor(self._scored)}

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit the model.
        """
        own, of_reference = split_tensors(tensors, ["scores", "scored"])
        self._scores = own["scores"].numpy().copy() if own else np.empty(0, np.float32)
        self._scored = int(own["scored"]) if own else 0
        self._reference.load_state_tensors(of_reference)
