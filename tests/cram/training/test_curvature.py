"""The charged pass that gives an optimizer the gradients of drawn labels."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cram.optim.optimizer import Optimizer
from cram.training import loop
from cram.training.curvature import curvature_is_due, estimate_curvature
from tests.cram.training.fake_session import make_session
from tests.cram.training.test_gradients import ROWS, VOCAB, session


class Recorder:
    """Keeps what it is given."""

    curvature_interval: int | None = 3
    curvature_rows: int | None = None

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.taken, self.predicted, self.finite = model, torch.zeros(0), 0, False

    def take_curvature(self, predicted: int, finite: torch.Tensor) -> None:
        gradients = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        self.taken, self.predicted, self.finite = torch.cat(gradients), predicted, bool(finite)


def curved(micro_rows: int = 4, updates: int = 0, rows: int | None = None, **changes: Any) -> Any:
    of = session(micro_rows, **changes)
    of.parts.optimizer = Recorder(of.parts.model)
    of.parts.optimizer.curvature_rows = rows
    of.config.seed, of.clock = 0, type("Clock", (), {"updates": updates})
    estimate_curvature(of, ROWS, 0.0)
    return of


def test_an_estimate_is_due_before_the_first_update_and_every_interval_after() -> None:
    of = curved()
    due = []
    for of.clock.updates in range(7):
        due.append(curvature_is_due(of))
    assert due == [True, False, False, True, False, False, True]
    of.parts.optimizer.curvature_interval = Optimizer.curvature_interval
    assert not curvature_is_due(of)


@pytest.mark.parametrize(("rows", "expected"), [(None, 4), (2, 2), (6, 6), (100, 8)])
def test_the_rows_are_counted_as_overhead_and_no_gradient_is_left(rows: int | None, expected: int) -> None:
    of = curved(rows=rows)
    assert of.parts.work.state() == {"main": {}, "overhead": {"training": {"2": expected}}}
    assert of.parts.optimizer.predicted == expected * 16 * 0.5
    assert of.parts.optimizer.finite and of.parts.optimizer.taken.abs().sum() > 0.0
    assert all(parameter.grad is None for parameter in of.parts.model.parameters())


def test_labels_depend_on_the_update_and_not_on_earlier_passes() -> None:
    first, again, later = curved(), curved(), curved(updates=3)
    assert torch.equal(first.parts.optimizer.taken, again.parts.optimizer.taken)
    assert not torch.equal(first.parts.optimizer.taken, later.parts.optimizer.taken)


def test_blocks_that_the_latest_micro_batch_left_out_take_part() -> None:
    of = curved()
    expected = of.parts.optimizer.taken
    of.parts.model.active = [1]
    estimate_curvature(of, ROWS, 0.0)
    assert torch.equal(of.parts.optimizer.taken, expected)


def test_fp16_gives_nearly_the_same_gradients_and_tells_an_overflow() -> None:
    half, single = curved(precision=torch.float16, scaled=True), curved()
    apart = torch.linalg.vector_norm(half.parts.optimizer.taken - single.parts.optimizer.taken)
    assert apart < 0.3 * torch.linalg.vector_norm(single.parts.optimizer.taken)  # some drawn labels differ
    half.parts.loss_scale.load({**half.parts.loss_scale.state(), "scale": 2.0**60})
    estimate_curvature(half, ROWS, 0.0)
    assert not half.parts.optimizer.finite
    assert half.parts.loss_scale.state()["scale"] < 2.0**60


def test_running_out_of_memory_halves_the_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    of = session(8)
    of.parts.optimizer, of.config.seed, of.clock = Recorder(of.parts.model), 0, type("Clock", (), {"updates": 0})
    of.state.out_of_memory = 0
    sampled_loss = of.parts.objective.sampled_loss

    def small_memory(model: Any, batch: Any, generator: torch.Generator) -> torch.Tensor:
        if len(batch.inputs) > 2:
            raise torch.OutOfMemoryError("fake")
        loss: torch.Tensor = sampled_loss(model, batch, generator)
        return loss

    monkeypatch.setattr(of.parts.objective, "sampled_loss", small_memory)
    estimate_curvature(of, ROWS, 0.0)
    assert (of.state.micro_rows, of.state.out_of_memory) == (2, 2)
    assert of.parts.work.state()["overhead"] == {"training": {"2": 2}}


def test_drawn_labels_have_the_frequencies_of_the_predictions() -> None:
    of = session(8)
    hidden = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)) * 8.0
    draws = of.parts.model.head.draw(hidden.expand(20_000, 16), torch.Generator().manual_seed(1))
    chances = of.parts.model.head(hidden).softmax(-1).flatten()
    counts = torch.bincount(draws, minlength=VOCAB)
    likely = chances * len(draws) >= 5.0
    expected = chances * len(draws)
    square = (((counts - expected) ** 2 / expected)[likely]).sum()
    assert int(likely.sum()) > 10
    assert square < 2.0 * likely.sum()  # chi-square, whose mean is the number of cells
    assert counts[~likely].sum() < 40


def test_dropout_of_the_pass_is_seeded_by_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    monkeypatch.setattr(loop, "estimate_curvature", lambda *arguments: seeds.append(torch.initial_seed()))
    fake = make_session(tmp_path, dropout=True)
    fake.parts.optimizer.curvature_interval = 1  # type: ignore[misc]
    loop.update(fake)
    loop.update(fake)
    assert len(set(seeds)) == 2
    assert seeds[1] == torch.initial_seed()
