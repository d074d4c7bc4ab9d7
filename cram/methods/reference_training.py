"""The training of a reference model before the first update, resumable in its middle, for methods that need one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cram.methods.beginning import Beginning, ReferenceModel

PREFIX = "reference/"


class ReferenceTraining:
    """Trains a reference model on some rows, in shuffled order, until it has spent its share of the budget.

    Args:
        share: of the budget.
        layers: blocks of the model; None for as many as the model of the run has.
        seed: of the order of the rows.
    """

    def __init__(self, share: float, layers: int | None, seed: int) -> None:
        self._share, self._layers, self._seed = share, layers, seed
        self._model: ReferenceModel | None = None
        self._stored: dict[str, Tensor] = {}  # of a checkpoint, until the model is made
        self._updates, self.done = 0, False

    @property
    def model(self) -> ReferenceModel:
        """The reference model; `train` must have been called in this process."""
        assert self._model is not None
        return self._model

    def train(self, beginning: Beginning, numbers: npt.NDArray[np.int64]) -> bool:
        """Do one update, unless the training is over already.

        Args:
            numbers: of the rows to train on.

        Returns:
            Whether the training is over.
        """
        if self._model is None:
            self._model = beginning.reference(self._layers)
            if self._stored:
                self._model.load_state_tensors(self._stored)
                self._stored = {}
        if not self.done and beginning.spent >= self._share:
            self.done = True
            self._model.forget_optimizer()
        if self.done:
            return True
        rows = min(beginning.update_rows, len(numbers))
        epoch, part = divmod(self._updates, len(numbers) // rows)
        order = np.random.Generator(np.random.Philox(key=self._seed, counter=epoch)).permutation(numbers)
        chosen = order[part * rows : (part + 1) * rows]
        begin, end = (min(1.0, (beginning.spent + cost) / self._share) for cost in (0.0, beginning.cost(rows)))
        self._model.update(beginning.read(chosen, epoch), begin, end)
        self._updates += 1
        return False

    def state_tensors(self) -> dict[str, Tensor]:
        """The model, its optimizer while it is trained, and how far the training has come."""
        tensors = self._model.state_tensors() if self._model else self._stored
        if not tensors:
            return {}
        counts = torch.tensor([self._updates, int(self.done)])
        return {"counts": counts, **{PREFIX + name: tensor for name, tensor in tensors.items()}}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave; an empty mapping begins anew.

        Raises:
            CramError: for a tensor that does not fit the model.
        """
        self._updates, self.done = 0, False
        if tensors:
            self._updates, done = tensors["counts"].tolist()
            self.done = bool(done)
        self._stored = {name.removeprefix(PREFIX): tensors[name] for name in tensors if name.startswith(PREFIX)}
        if self._model and self._stored:
            self._model.load_state_tensors(self._stored)
            self._stored = {}


def mean_nats(nats: Tensor, predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the nats per predicted token of each row, 0 for a row without one."""
    means: npt.NDArray[np.float32] = (nats.float().cpu().numpy() / np.maximum(predicted, 1)).astype(np.float32)
    return means


def split_tensors(tensors: dict[str, Tensor], own: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the tensors of a method into its own and those of its reference training."""
    return {name: tensors[name] for name in own if name in tensors}, {
        name: tensor for name, tensor in tensors.items() if name not in own
    }
