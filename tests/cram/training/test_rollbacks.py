"""Updates that are not finite: what is left out, when the run returns to a checkpoint."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cram.config.training import FaultsConfig
from cram.errors import CramError
from cram.run.metrics import read_metrics
from cram.training.loop import save, train, update
from cram.training.loss_scale import LossScale
from cram.training.restoring import resume
from cram.training.session import Session
from tests.cram.run.tensorboard_files import check_agreement
from tests.cram.training.fake_session import FakeBatch, FakeObjective, make_session


class Sick(FakeObjective):
    """Its loss is not finite for some rows."""

    def __init__(self, sick: set[int]) -> None:
        super().__init__()
        self.sick = sick

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        return super().loss(model, batch) * (math.nan if self.sick & {int(row) for row in batch.values} else 1.0)


def test_an_update_that_is_not_finite_is_told_to_the_optimizer_and_left_out_of_the_loss(tmp_path: Path) -> None:
    session = make_session(tmp_path, objective=Sick({17}), log_interval=1)
    assert train(session)
    session.metrics.close()
    assert session.parts.optimizer.finite == [step != 2 for step in range(10)]  # type: ignore[attr-defined]
    assert (session.state.faults.skipped, session.state.faults.in_a_row) == (1, 0)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["loss"] is None for line in lines] == [step == 2 for step in range(10)]
    assert session.state.predicted == sum(row % 3 for row in range(80) if not 16 <= row < 24)


def test_gradients_that_are_not_finite_are_a_fault_though_the_loss_is(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.parts.model.weight.register_hook(lambda gradient: gradient * math.inf)  # type: ignore[union-attr, operator]
    update(session)
    assert session.parts.optimizer.finite == [False]  # type: ignore[attr-defined]
    assert session.state.faults.skipped == 1


def test_a_run_of_them_returns_to_the_checkpoint_with_a_lower_learning_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sick = set(range(32, 56))  # updates 4 to 6 of 8 rows each
    session = make_session(tmp_path, objective=Sick(sick), faults=FaultsConfig(patience=3, spike=1e9))
    before = session.parts.model.weight.detach().clone()  # type: ignore[union-attr, operator]
    session.parts.optimizer.step = spoil(session)  # type: ignore[method-assign]
    assert train(session)
    session.metrics.close()
    assert [vars(rollback) for rollback in session.state.faults.rollbacks] == [
        {"step": 7, "to_step": 0, "lr_factor": 0.5}
    ]
    assert "back to the weights of update 0, with 0.5 times the learning rate" in capsys.readouterr().out
    # Seven updates made it larger, the return undid them, three more followed; the clock and the data went on.
    torch.testing.assert_close(session.parts.model.weight.detach(), before + 3)  # type: ignore[union-attr, operator]
    assert (session.clock.updates, session.parts.loader.rows_taken) == (10, 80)
    multipliers = session.parts.optimizer.multipliers  # type: ignore[attr-defined]
    assert multipliers[6:8] == pytest.approx([0.35, 0.5 * 0.25])
    faults = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "fault"]
    assert [(line["event"], line["step"], line["to_step"]) for line in faults] == [("rollback", 7, 0)]
    check_agreement(tmp_path)


def test_no_checkpoint_is_written_amid_a_row_of_faults(tmp_path: Path) -> None:
    config = FaultsConfig(patience=3, spike=1e9)
    session = make_session(tmp_path, objective=Sick(set(range(32, 56))), faults=config, checkpoint_seconds=0.0)
    assert train(session)
    assert [rollback.to_step for rollback in session.state.faults.rollbacks] == [4]


def test_there_is_no_rollback_at_the_end_of_the_budget(tmp_path: Path) -> None:
    config = FaultsConfig(patience=2, rollbacks=0, spike=1e9)
    session = make_session(tmp_path, objective=Sick(set(range(64, 80))), faults=config)
    assert train(session)
    assert (session.state.faults.in_a_row, session.state.faults.rollbacks) == (2, [])


def test_a_run_begun_without_a_loss_scale_is_resumed_with_one(tmp_path: Path) -> None:
    first = make_session(tmp_path)
    save(first)
    scale = LossScale(first.parts.model.parameters(), torch.device("cpu"))
    second = make_session(tmp_path, metrics=first.metrics, loss_scale=scale)
    before = scale.state()
    resume(second, first.checkpoints.read_newest())  # type: ignore[arg-type]
    assert scale.state() == before


def spoil(session: Session) -> Any:
    """A step that adds one to the weight."""
    step = session.parts.optimizer.step

    def spoiled(*words: Any) -> None:
        step(*words)
        with torch.no_grad():
            session.parts.model.weight += 1  # type: ignore[operator]

    return spoiled


def test_a_run_that_stays_sick_ends_with_advice_and_its_checkpoint(tmp_path: Path) -> None:
    config = FaultsConfig(patience=2, rollbacks=1)
    session = make_session(tmp_path, budget="50steps", objective=Sick(set(range(1000))), faults=config)
    with pytest.raises(CramError, match=r"not finite at update 4, after 1 rollbacks.*Lower optimizer\.lr"):
        train(session)
    assert session.checkpoints.steps() == [0]
