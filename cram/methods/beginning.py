"""What a method finds before the first update, and the models that it may train beside that of the run."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor


class ReferenceModel(Protocol):
    """A model that is trained beside that of the run, or before it, on rows that a method chooses.

    Attributes:
        blocks: its number of blocks.
    """

    blocks: int

    def update(self, rows: Any, begin: float, progress: float) -> None:
        """Train on rows, at the rates of an update of the run from `begin` to a predicted `progress`, in [0, 1]."""
        ...

    def nats_per_row(self, rows: Any, progress: float) -> tuple[Tensor, npt.NDArray[np.int64]]:
        """See `RowSource.nats_per_row`; progress decides what is hidden, as in an update of the run."""
        ...

    def forget_optimizer(self) -> None:
        """Free the state of the optimizer, once the model is trained."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """Give weights and optimizer as named tensors."""
        ...

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit.
        """
        ...


class Beginning(Protocol):
    """What a method finds before the first update.

    Attributes:
        numbers: int64 [n], the numbers of the rows of the data, in rising order.
        update_rows: rows of the largest update.
    """

    numbers: npt.NDArray[np.int64]
    update_rows: int

    @property
    def spent(self) -> float:
        """Share of the budget that the point `start` has spent so far."""
        ...

    def cost(self, rows: int) -> float:
        """Share of the budget that an update of a reference model on so many rows is expected to spend."""
        ...

    def read(self, numbers: npt.NDArray[np.int64], epoch: int = 0) -> Any:
        """Read rows by their numbers; what is hidden in them depends on the epoch."""
        ...

    def reference(self, layers: int | None = None) -> ReferenceModel:
        """Make a model like that of the run, with other random weights and so many blocks (None: as many)."""
        ...
