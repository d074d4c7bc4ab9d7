"""The points of an update: which exist, in which order they are called, and that each has one owner."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cram.errors import CramError
from cram.methods.averaging import Averaging
from cram.methods.method import POINTS, Method, Methods


class Recording(Method):
    """A method that overrides every point and notes the calls."""

    name = "recording"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, beginning: Any) -> bool:
        self.calls.append("start")
        return True

    def order(self, loader: Any) -> None:
        self.calls.append("order")

    def rows(self, rows: int, progress: float) -> int:
        self.calls.append("rows")
        return 2 * rows

    def select(self, source: Any, rows: int, progress: float) -> Any:
        self.calls.append("select")
        return source.take(rows)[2:]

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        self.calls.append("before_update")

    def depth(self, model: nn.Module, progress: float, seed: int) -> None:
        self.calls.append("depth")

    def after_step(self, model: nn.Module, progress: float) -> None:
        self.calls.append("after_step")

    def finish(self, model: nn.Module) -> None:
        self.calls.append("finish")


class Source:
    """Rows that hold their own number."""

    def take(self, n: int) -> Tensor:
        return torch.arange(float(n))


def test_a_method_that_overrides_nothing_changes_nothing() -> None:
    model, source = nn.Linear(1, 1), Source()
    methods = Methods([Method()])
    assert methods.start(None)  # type: ignore[arg-type]
    methods.order(None)
    assert methods.rows(8, 0.5) == 8
    assert methods.select(source, 3, 0.5).tolist() == [0.0, 1.0, 2.0]  # type: ignore[arg-type]
    methods.before_update(model, None, 0.5)
    methods.depth(model, 0.5, 1)
    methods.after_step(model, 0.5)
    methods.finish(model)
    assert Method().state_tensors() == {}
    assert Method().values(0.5) == Method().figures() == {}
    assert methods.reads_ahead == 1.0


def test_every_point_reaches_the_method_that_overrides_it() -> None:
    recording, model = Recording(), nn.Linear(1, 1)
    methods = Methods([Method(), recording])
    assert methods.start(None)  # type: ignore[arg-type]
    methods.order(None)
    assert methods.rows(8, 0.5) == 16
    assert methods.select(Source(), 4, 0.5).tolist() == [2.0, 3.0]  # type: ignore[arg-type]
    methods.before_update(model, None, 0.5)
    methods.depth(model, 0.5, 1)
    methods.after_step(model, 0.5)
    methods.finish(model)
    assert recording.calls == list(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_two_methods_that_change_the_same_point_are_refused(point: str) -> None:
    one = type("One", (Method,), {"name": "one", point: getattr(Recording, point)})
    other = type("Other", (Method,), {"name": "other", point: getattr(Recording, point)})
    with pytest.raises(CramError, match=f"^one and other cannot be used together: both change the point `{point}`"):
        Methods([one(), other()])


def test_averaging_takes_two_points_and_leaves_the_others_free() -> None:
    overridden = {point for point in POINTS if getattr(Averaging, point) is not getattr(Method, point)}
    assert overridden == {"after_step", "finish"}


def test_all_points_are_documented() -> None:
    assert all(getattr(Method, point).__doc__ for point in POINTS)
