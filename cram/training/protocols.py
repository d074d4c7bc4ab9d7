"""What training asks of its parts, whichever class they have.

`cram.build` chooses the parts of a run; training knows them by these protocols alone. To add an objective or an
optimizer, write a subclass of `cram.objectives.objective.Objective` or `cram.optim.optimizer.Optimizer`: both bases
fulfil the protocol that bears their name. Methods have a base class only, `cram.methods.method.Method`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from cram.reference_time import Counts, ExecutedWork


class LoaderProtocol(Protocol):
    """Gives rows in training order, each once an epoch. What it gives can be sliced and indexed by rows.

    rows_total: rows that a run may take, all epochs together. epoch_rows: rows of one epoch. rows_taken: rows that were
    given so far.
    """

    rows_total: int
    epoch_rows: int
    rows_taken: int

    @property
    def rows_left(self) -> int:
        """Rows that are still to be given."""
        ...

    def next(self, n: int, progress: float = 0.0, places: Any = None) -> Any:
        """Give the next n rows, of them those at some places only if given; which ones may depend on progress."""
        ...

    def read(self, numbers: Any, epoch: int = 0) -> Any:
        """Give rows by their numbers, int64 [n]; they do not count as taken."""
        ...

    def numbers(self) -> Any:
        """Give the numbers of the rows of an epoch, int64 [n], in rising order."""
        ...

    def restore(self, tokens: Any, documents: Any, index: Any, epoch: Any) -> Any:
        """Make rows of their arrays."""
        ...

    def keep(self, numbers: Any) -> None:
        """Give only these rows from now on, int64 [n]; those that were taken still count."""
        ...

    def draw(self, choose: Any) -> None:
        """Give rows that a function chooses, from the rows taken so far, the number of rows and progress."""
        ...

    def peek(self, n: int) -> Any:
        """Give the next n rows without counting them as taken."""
        ...

    def state(self) -> dict[str, Any]:
        """Give the place in the data as JSON, for a checkpoint."""
        ...

    def resume(self, state: dict[str, Any]) -> None:
        """Go to the place that `state` gave."""
        ...


class BatchProtocol(Protocol):
    """One micro-batch of an objective. predicted: how many of its tokens are predicted."""

    predicted: int

    def to(self, device: torch.device) -> "BatchProtocol":
        """Give the same batch on a device, without waiting for the copy."""
        ...


class ObjectiveProtocol(Protocol):
    """Makes a batch of rows on the host, and a loss of a batch on the device.

    phases: the values of progress from which on the batches are of another kind; the first is 0.
    """

    phases: tuple[float, ...]

    def prepare(self, rows: Any, progress: float) -> Any:
        """Make a micro-batch, a `BatchProtocol`, of rows, on the host, as it is wanted at some progress."""
        ...

    def rows_joined(self, progress: float) -> int:
        """Give the number of rows of the data that become one row of the model at some progress."""
        ...

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        """Compute the sum of the nats of a batch's predicted tokens, an fp32 scalar with gradients."""
        ...

    def sampled_loss(self, model: Any, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """Compute the sum of the nats of labels that are drawn from the model's predictions, with gradients."""
        ...

    def nats_per_row(self, model: Any, batch: Any) -> torch.Tensor:
        """Compute the summed nats of each row of a batch, fp32 (rows,), without gradients."""
        ...

    def predicted_per_row(self, batch: Any) -> Any:
        """Count the predicted tokens of each row of a batch on the host, int64 [rows]."""
        ...

    def begin_update(self, update: int) -> None:
        """Begin an update, of which so many were before, once its rows are chosen."""
        ...

    def end_update(self, update: int) -> None:
        """End this update, when its losses are known."""
        ...

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Give what is learned from the updates, as named tensors."""
        ...

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `state_tensors` gave; an empty mapping forgets everything.

        Raises:
            CramError: for a tensor that does not fit.
        """
        ...

    def values(self, progress: float) -> dict[str, str]:
        """Describe what is learned at some progress, by name."""
        ...

    def scheduled(self, progress: float) -> dict[str, float]:
        """Give the numbers that change over the run, at some progress, by name, such as the mask rate."""
        ...


class OptimizerProtocol(Protocol):
    """An update rule whose learning rate and state are set from outside.

    kind: its value of `optimizer.kind`. curvature_interval: updates between two estimates of the curvature; None for a
    rule that needs none. curvature_rows: rows of an estimate; None for those of a micro-batch.
    """

    kind: str
    curvature_interval: int | None
    curvature_rows: int | None

    def overlap(self) -> AbstractContextManager[None]:
        """Give the context of the last backward pass of an update, in which ranks may exchange gradients already."""
        ...

    def collect(self, failed: bool = False) -> bool:
        """Finish the gradients of an update; several ranks add them up.

        Args:
            failed: whether this rank could not compute its gradients.

        Returns:
            Whether any rank has failed. Then no rank of several has gradients any more.
        """
        ...

    def gradients(self, model: Any) -> list[torch.Tensor]:
        """Give the gradients that `step` takes: one rank all of the model's, several ranks each those of its pieces."""
        ...

    def owned(self, model: Any) -> list[torch.nn.Parameter]:
        """Give the parameters that have these gradients: those of the model, or this rank's pieces of them."""
        ...

    def held_bytes(self) -> int:
        """Count the bytes of the state that this rank holds."""
        ...

    def take_curvature(self, predicted: int, finite: torch.Tensor) -> None:
        """Take the gradients of the mean loss of so many drawn labels as an estimate of the curvature."""
        ...

    def step(self, multiplier: float, progress: float, finite: torch.Tensor, others: float | None = None) -> None:
        """Update the weights from their gradients, without waiting for the device.

        Args:
            multiplier: what the peak learning rate of each group is multiplied by.
            progress: the spent share of the budget, for schedules of the optimizer's own.
            finite: bool scalar on the device; where it is False, weights and state stay as they are.
            others: the same as `multiplier` for embedding, gains and biases; None for no difference.
        """
        ...

    def lr(self) -> dict[str, float]:
        """Give the learning rate of each group at the latest update, by the group's name."""
        ...

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Give the state as named tensors; none before the first update."""
        ...

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit.
        """
        ...

    def regroup(self, model: Any, inherited: Mapping[str, str]) -> None:
        """Take the parameters of a model that has changed its shape.

        Args:
            inherited: for each parameter that keeps a state, its name and the name that the state had.
        """
        ...

    def values(self, progress: float) -> dict[str, str]:
        """Describe what follows progress, at some progress, by name: weight decay, momentum."""
        ...

    def scheduled(self, progress: float) -> dict[str, float]:
        """Give the same as numbers, by name."""
        ...


class FlopCountProtocol(Protocol):
    """Counts the floating-point operations of executed passes."""

    @property
    def of_prediction(self) -> float:
        """Operations that the head spends on a predicted token."""
        ...

    def of_blocks(self, counts: Counts) -> float:
        """Count the operations of the passes of `ExecutedWork.main` or `overhead`, the head left out."""
        ...

    def training(self, work: ExecutedWork, predicted: int) -> float:
        """Count those of all training passes of a run that has predicted so many tokens."""
        ...

    def executed(self, work: ExecutedWork, predicted: int, positions: int) -> float:
        """Count those of all passes, which methods add included, of a run that trained on so many positions."""
        ...


class ShardsProtocol(Protocol):
    """The data of a run: packed rows in a folder."""

    @property
    def folder(self) -> Path:
        """Where the rows lie."""
        ...

    @property
    def hash(self) -> str:
        """What names the rows: the sha256 of their list of checksums."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens in all rows, padding left out."""
        ...

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json that made the rows."""
        ...
