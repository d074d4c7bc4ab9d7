"""What a technique of the literature may do in a run: the points that the loop calls, and the order of the calls.

A method is one file: a subclass of `Method` that overrides the points it needs, driven by progress, the spent share of
the budget in [0, 1], and never by a number of updates. What a method costs is booked to the account `methods`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from cram.errors import CramError
from cram.files.tensors import check_tensors

# The points of a run, in the order of their first call. `order` is called once before the first update, `finish` once
# after the last one, the others in each update.
POINTS = ("order", "rows", "select", "before_update", "depth", "after_step", "finish")


class Method:
    """A technique that takes part in training. Every point does nothing until a subclass overrides it.

    Two methods of a run must not override the same point.
    """

    name: str

    def order(self, loader: Any) -> None:
        """Change the order in which the loader gives its rows: curricula and pruning.

        Called once in each process, before the first update, when a checkpoint has been loaded already.
        """

    def rows(self, rows: int, progress: float) -> int:
        """Choose how many rows the next update takes.

        Args:
            rows: what the batch of the recipe asks for at this progress.

        Returns:
            The number of rows; the loop rounds it down to whole micro-batches and takes one micro-batch at least.
        """
        return rows

    def select(self, rows: Any, progress: float, nats_per_row: Callable[[Any], Tensor]) -> Any:
        """Choose which of the rows that were taken are trained on: selective backpropagation, RHO-loss.

        Args:
            rows: the rows of the update; they can be sliced and indexed by an int64 array.
            nats_per_row: computes the summed nats of each row, fp32 (rows,), in a forward pass without gradients.

        Returns:
            The rows to train on, in whole micro-batches. All rows that were taken count as seen.
        """
        return rows

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        """Change the model or the optimizer before the forward pass: growing, freezing."""

    def depth(self, model: nn.Module, progress: float) -> None:
        """Choose which blocks the next forward passes compute: layer dropping."""

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

    def order(self, loader: Any) -> None:
        """See `Method.order`."""
        for method in self._at["order"]:
            method.order(loader)

    def rows(self, rows: int, progress: float) -> int:
        """See `Method.rows`."""
        for method in self._at["rows"]:
            rows = method.rows(rows, progress)
        return rows

    def select(self, rows: Any, progress: float, nats_per_row: Callable[[Any], Tensor]) -> Any:
        """See `Method.select`."""
        for method in self._at["select"]:
            rows = method.select(rows, progress, nats_per_row)
        return rows

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        """See `Method.before_update` and `Method.depth`, which is called right after it."""
        for method in self._at["before_update"]:
            method.before_update(model, optimizer, progress)
        for method in self._at["depth"]:
            method.depth(model, progress)

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
