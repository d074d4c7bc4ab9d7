"""What a technique of the literature may do in a run: the points that the loop calls, and the order of the calls.

A method is one file: a subclass of `Method` that overrides the points it needs, driven by progress, the spent share of
the budget in [0, 1], and never by a number of updates. What a method costs is booked to the account `methods`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from cram.errors import CramError
from cram.files.tensors import check_tensors
from cram.methods.beginning import Beginning

# The points of a run, in the order of their first call. `start` and `order` are called before the first update,
# `finish` after the last one, the others in each update.
POINTS = ("start", "order", "rows", "select", "before_update", "depth", "after_step", "finish")


class RowSource(Protocol):
    """Where the rows of an update come from."""

    @property
    def rows_left(self) -> int:
        """Rows that can still be taken."""
        ...

    @property
    def micro_rows(self) -> int:
        """Rows of a micro-batch."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the random choices of this update."""
        ...

    def take(self, n: int) -> Any:
        """Take the next n rows. They can be sliced, and indexed by an int64 array; `index` holds their numbers."""
        ...

    def join(self, parts: Sequence[Any]) -> Any:
        """Join rows that were taken."""
        ...

    def restore(self, tokens: Any, documents: Any, index: Any, epoch: Any) -> Any:
        """Make rows of their arrays, which a method has kept."""
        ...

    def nats_per_row(self, rows: Any) -> tuple[Tensor, npt.NDArray[np.int64]]:
        """Compute, in a forward pass without gradients, the nats of each row and the number of its predicted tokens.

        Returns:
            nats: fp32 (rows,) on the device. predicted: int64 [rows].
        """
        ...


class Method:
    """A technique that takes part in training. Every point does nothing until a subclass overrides it.

    Two methods of a run must not override the same point. A method of a recipe is made of its group of keys and the
    seed of the run.

    Attributes:
        reads_ahead: rows that are read for each row that is trained on, as far as the method knows.
    """

    name: str
    reads_ahead: float = 1.0

    def shape(self, model: nn.Module) -> None:
        """Change the shape of the model when it has been built, before its optimizer is made. No point of an update."""

    def depths(self, layers: int) -> list[int]:
        """List the numbers of blocks that the model has in the course of the run.

        Args:
            layers: number of blocks at the end.
        """
        return [layers]

    def passes(self, layers: int) -> list[tuple[str, int]]:
        """List what the method executes beside full training passes: `training`, `forward` or `step`, and blocks.

        A table of reference system time must have an entry for each.
        """
        return []

    def check(self, rows: int, update_rows: int) -> None:
        """Check that the data suffices, before training.

        Args:
            rows: of the data. update_rows: of the largest update.

        Raises:
            CramError: if it does not.
        """

    def start(self, beginning: Beginning) -> bool:
        """Do a piece of what comes before the first update, such as an update of a reference model.

        Called in every process until it returns True. The state may be saved between two calls, and a resumed run goes
        on from there.

        Returns:
            Whether all is done.
        """
        return True

    def order(self, loader: Any) -> None:
        """Change which rows the loader gives, by its `keep` or `draw`: curricula and pruning.

        Called once in each process, before the first update, when a checkpoint has been loaded already.
        """

    def rows(self, rows: int, progress: float) -> int:
        """Choose how many rows the next update trains on.

        Args:
            rows: what the batch of the recipe asks for at this progress.

        Returns:
            The number of rows; the loop rounds it down to whole micro-batches and takes one micro-batch at least.
        """
        return rows

    def select(self, source: RowSource, rows: int, progress: float) -> Any:
        """Choose which rows are trained on: selective backpropagation, RHO-loss.

        Args:
            source: of rows; it has at least so many left.
            rows: how many rows the update shall train on.

        Returns:
            The rows to train on. All rows that were taken count as read.
        """
        return source.take(rows)

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        """Change the model or the optimizer before the forward pass: growing, freezing."""

    def depth(self, model: nn.Module, progress: float, seed: int) -> None:
        """Choose which blocks the next micro-batch computes: layer dropping.

        Args:
            seed: of the random choices of this micro-batch; another one for each.
        """

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Look at the weights that an update has left: averaging."""

    def finish(self, model: nn.Module) -> None:
        """Turn the weights at the end of the budget into the result of the run. It may be called again."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Give what a resumed run needs to go on, as named tensors."""
        return {}

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave; an empty mapping forgets everything.

        Raises:
            CramError: for a tensor that does not fit the model.
        """
        check_tensors(tensors, {})

    def step_back(self, model: nn.Module, progress: float) -> None:
        """Forget what belongs to later progress: a longer budget has moved progress back to this value."""

    def values(self, progress: float) -> dict[str, str]:
        """Describe what the method does at some progress, by name; printed where progress steps back."""
        return {}

    def scheduled(self, progress: float) -> dict[str, float]:
        """Numbers that the method changes over the run, at some progress, by name, for the metrics."""
        return {}

    def repeated_rows(self, taken: int) -> int | None:
        """Count the rows, of those taken so far, that had been taken before; None where the loader's epochs tell it."""
        return None

    def figures(self) -> dict[str, Any]:
        """Give what the receipt says about the method at the end of the run, as JSON."""
        return {}


class Methods:
    """The methods of a run, called one point at a time.

    Raises:
        CramError: where two methods override the same point.
    """

    def __init__(self, methods: Sequence[Method] = ()) -> None:
        self._methods = tuple(methods)
        self._at = {point: [method for method in methods if _overrides(method, point)] for point in POINTS}
        for point, claimants in self._at.items():
            if len(claimants) > 1:
                names = " and ".join(method.name for method in claimants)
                raise CramError(f"{names} cannot be used together: both change the point `{point}` of an update.")

    def __iter__(self) -> Any:
        """The methods, in the order in which they were given."""
        return iter(self._methods)

    @property
    def reads_ahead(self) -> float:
        """Rows that are read for each row that is trained on."""
        return max((method.reads_ahead for method in self._methods), default=1.0)

    def claims(self, point: str) -> bool:
        """Whether a method changes a point."""
        return bool(self._at[point])

    def start(self, beginning: Beginning) -> bool:
        """See `Method.start`."""
        return all(method.start(beginning) for method in self._at["start"])

    def order(self, loader: Any) -> None:
        """See `Method.order`."""
        for method in self._at["order"]:
            method.order(loader)

    def rows(self, rows: int, progress: float) -> int:
        """See `Method.rows`."""
        for method in self._at["rows"]:
            rows = method.rows(rows, progress)
        return rows

    def select(self, source: RowSource, rows: int, progress: float) -> Any:
        """See `Method.select`."""
        for method in self._at["select"]:
            return method.select(source, rows, progress)
        return source.take(rows)

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        """See `Method.before_update`."""
        for method in self._at["before_update"]:
            method.before_update(model, optimizer, progress)

    def depth(self, model: nn.Module, progress: float, seed: int) -> None:
        """See `Method.depth`."""
        for method in self._at["depth"]:
            method.depth(model, progress, seed)

    def after_step(self, model: nn.Module, progress: float) -> None:
        """See `Method.after_step`."""
        for method in self._at["after_step"]:
            method.after_step(model, progress)

    def finish(self, model: nn.Module) -> None:
        """See `Method.finish`."""
        for method in self._at["finish"]:
            method.finish(model)


def _overrides(method: Method, point: str) -> bool:
    return getattr(type(method), point) is not getattr(Method, point)
