"""RHO-loss: rows are trained on whose loss a reference model has lowered most."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cram.config.methods import RhoConfig
from cram.errors import CramError
from cram.methods.beginning import Beginning
from cram.methods.method import Method, RowSource
from cram.methods.reference_training import ReferenceTraining, mean_nats, split_tensors


class Rho(Method):
    """Reads more rows than it trains on, and keeps those with the largest difference of two losses.

    The difference is the loss of the model less the irreducible loss, which is that of a reference model trained on
    rows that are held out from the run for it. Both are means over the predicted tokens of a row, with the same tokens
    hidden. The irreducible loss is computed when a row is read first, and kept by the number of the row, so that later
    epochs use it again.

    Source: arXiv:2206.07137 as arXiv:2307.06440 uses it. Changed: the reference model is trained inside the budget, and
    its losses are kept by row, not by position in the order.

    Args:
        config: the keys `rho.*`.
        seed: of the run, which chooses the rows that are held out.
    """

    name = "rho"

    def __init__(self, config: RhoConfig, seed: int) -> None:
        assert config.keep is not None
        self._config, self._keep, self._seed = config, config.keep, seed
        self._reference = ReferenceTraining(config.reference_share, config.reference_layers, seed)
        self._irreducible = np.empty(0, np.float32)  # by number of the row; NaN where it is not known yet
        self.reads_ahead = 1.0 / self._keep

    def passes(self, layers: int) -> list[tuple[str, int]]:
        """Forward passes of both models, and the training of the reference model."""
        reference = self._config.reference_layers or layers
        return [("forward", layers), ("forward", reference), ("training", reference), ("step", reference)]

    def check(self, rows: int, update_rows: int) -> None:
        """Check that the rows that are held out make an update, and the others one too.

        Raises:
            CramError: if they do not.
        """
        held_out = round(rows * self._config.hold_out)
        if held_out < update_rows or rows - held_out < math.ceil(update_rows / self._keep):
            raise CramError(
                f"rho.hold_out={self._config.hold_out}: of {rows} rows, {held_out} are held out and "
                f"{rows - held_out} are left, but an update of {update_rows} rows needs so many of the first and "
                f"{math.ceil(update_rows / self._keep)} of the others. Give more text, or lower batch.tokens."
            )

    def split(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Split the numbers of rows into those that are held out and the others, both in rising order."""
        order = np.random.Generator(np.random.Philox(key=self._seed)).permutation(numbers)
        held_out = round(len(numbers) * self._config.hold_out)
        return np.sort(order[:held_out]), np.sort(order[held_out:])

    def start(self, beginning: Beginning) -> bool:
        """Train the reference model for another update."""
        if not len(self._irreducible):
            self._irreducible = np.full(int(beginning.numbers.max()) + 1, np.nan, np.float32)
        return self._reference.train(beginning, self.split(beginning.numbers)[0])

    def order(self, loader: Any) -> None:
        """Train on the rows that are not held out."""
        loader.keep(self.split(loader.numbers())[1])

    def select(self, source: RowSource, rows: int, progress: float) -> Any:
        """Read rows, and keep those with the largest difference."""
        taken = source.take(min(source.rows_left, max(rows, round(rows / self._keep))))
        losses = mean_nats(*source.nats_per_row(taken))
        unknown = np.flatnonzero(np.isnan(self._irreducible[taken.index]))
        if len(unknown):
            part = taken[unknown]
            self._irreducible[part.index] = mean_nats(*self._reference.model.nats_per_row(part, progress))
        differences = losses - self._irreducible[taken.index]
        best = np.argsort(-differences, kind="stable")[:rows]
        return taken[np.sort(best)]

    def state_tensors(self) -> dict[str, Tensor]:
        """The reference model, and the irreducible losses by row."""
        tensors = self._reference.state_tensors()
        return tensors | {"irreducible": torch.from_numpy(self._irreducible.copy())} if tensors else {}

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit the model.
        """
        own, of_reference = split_tensors(tensors, ["irreducible"])
        self._irreducible = own["irreducible"].numpy().copy() if own else np.empty(0, np.float32)
        self._reference.load_state_tensors(of_reference)
