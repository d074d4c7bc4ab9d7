"""The loop over fake parts: what it asks of them, in which order, and with which numbers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.choices import SCHEDULES
from cram.config.training import ScheduleConfig
from cram.methods.method import Method, Methods, RowSource
from cram.optim.schedule import make_rate_progress, make_schedule
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import Metrics, read_metrics
from cram.training import loop, rank_report
from cram.training.loop import predicted_progress, save, settle, train, update, update_rows
from cram.training.noise_scale import NoiseScale
from cram.training.restoring import resume, weights_hash
from tests.cram.training.fake_session import SEQ_LEN, FakeModel, FakeOptimizer, make_session


class Descent(FakeOptimizer):
    """Plain gradient descent, which notes where it has read its rates, and the weights before each update."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.progress: list[float] = []
        self.weights: list[float] = []

    def step(self, multiplier: float, progress: float, finite: torch.Tensor, others: float | None = None) -> None:
        super().step(multiplier, progress, finite)
        self.progress.append(progress)
        (weight,) = self._model.parameters()
        self.weights.append(float(weight.detach().sum()))
        with torch.no_grad():
            weight -= multiplier * weight.grad  # type: ignore[operator]


def test_each_update_reads_its_rates_in_its_middle_and_all_else_at_its_predicted_end(tmp_path: Path) -> None:
    model = FakeModel()
    session = make_session(tmp_path, model=model, optimizer=(optimizer := Descent(model)))
    assert train(session)
    assert optimizer.progress == pytest.approx([(step + 0.5) / 10 for step in range(10)])
    assert optimizer.multipliers == pytest.approx([1.0 - (step + 0.5) / 10 for step in range(10)])
    ends = sorted(set(session.parts.objective.progress))  # type: ignore[attr-defined]
    assert ends == pytest.approx([(step + 1) / 10 for step in range(10)]) and ends[-1] == 1.0


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_the_first_and_the_last_update_move_the_weights(kind: str, tmp_path: Path) -> None:
    model, config = FakeModel(), ScheduleConfig(kind=kind)
    optimizer = Descent(model)
    rates = {"schedule": make_schedule(config), "rate_progress": make_rate_progress(config)}
    train(make_session(tmp_path, model=model, optimizer=optimizer, **rates))
    assert optimizer.weights[0] != optimizer.weights[1]
    moved = optimizer.weights[-1] != float(model.weight.detach().sum())
    assert moved == (kind != "budget-triangle2")  # Cramming's last update had a rate of zero


def test_a_resumed_run_reads_its_rates_at_the_same_progress(tmp_path: Path) -> None:
    read: list[float] = []
    for budget in ("whole", "parts"):
        run, progress, stop = tmp_path / budget, [], [budget == "parts"]
        for _ in range(2):
            model = FakeModel()
            optimizer = Descent(model)
            optimizer.progress = progress
            session = make_session(run, model=model, optimizer=optimizer)
            session.stop_requested = lambda session=session, stop=stop: stop[0] and session.clock.updates == 4
            if (checkpoint := session.checkpoints.read_newest()) is not None:
                resume(session, checkpoint)
            stopped = not train(session)
            assert session.state.rate_progress == progress[-1]
            if not stopped:
                break
            stop[0] = False
        read = read or progress
        assert progress == read and len(progress) == 10


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(8, 300), batch=st.integers(2, 20), micro=st.integers(1, 4))
def test_data_that_ends_first_lands_the_schedule_and_repeats_no_row(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, micro: int
) -> None:
    run = tmp_path_factory.mktemp("run")
    session = make_session(run, budget="100000steps", rows=rows, batch=batch, micro_rows=micro)
    assert train(session)
    assert session.state.last_progress == 1.0
    assert session.parts.loader.rows_left < micro
    progress = session.parts.objective.progress  # type: ignore[attr-defined]
    assert progress == sorted(progress)


def test_progress_is_the_larger_of_the_clocks_and_the_datas_share(tmp_path: Path) -> None:
    session = make_session(tmp_path, budget="10steps", rows=1000)
    assert predicted_progress(session, 8) == pytest.approx(0.1)
    session.parts.loader.rows_taken = 500
    assert predicted_progress(session, 8) == pytest.approx(0.508)


def test_the_ramp_gives_whole_micro_batches(tmp_path: Path) -> None:
    session = make_session(tmp_path, batch_tokens=lambda progress: SEQ_LEN * (2 + 18 * progress), micro_rows=4)
    assert [update_rows(session, progress) for progress in (0.0, 0.5, 1.0)] == [4, 12, 20]


def test_the_page_is_written_at_the_start_at_evaluations_and_at_checkpoints(tmp_path: Path) -> None:
    session = make_session(tmp_path, evaluation_interval=0.4, checkpoint_shares=(0.2,))
    shown: list[int] = []
    session.show_page = lambda: shown.append(session.clock.updates)
    train(session)
    assert shown == [0, 2, 4, 8]


def test_a_wish_to_stop_saves_and_resumes_to_the_same_end(tmp_path: Path) -> None:
    straight = make_session(tmp_path / "a")
    train(straight)
    asked = iter([False, False, False, True])
    first = make_session(tmp_path / "b", stop_requested=lambda: next(asked))
    assert not train(first)
    first.metrics.close()
    checkpoint = Checkpoints(tmp_path / "b").read_newest()
    assert checkpoint is not None
    assert checkpoint.step == 4
    metrics = Metrics(tmp_path / "b", checkpoint.state["metrics"])
    second = make_session(tmp_path / "b", metrics=metrics)
    resume(second, checkpoint)
    assert train(second)
    second.metrics.close()
    assert second.clock.updates == 10
    assert second.parts.optimizer.multipliers == straight.parts.optimizer.multipliers[4:]  # type: ignore[attr-defined]
    lines = read_metrics(tmp_path / "b" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_what_was_trained_over_a_damaged_checkpoint_is_saved_again(tmp_path: Path) -> None:
    first = make_session(tmp_path)
    save(first)
    train(first)
    (tmp_path / "checkpoints" / "10" / "state.json").unlink()
    found = first.checkpoints.read_newest()
    assert found is not None and found.step == 0
    second = make_session(tmp_path, metrics=first.metrics)
    resume(second, found)
    assert train(second)
    assert first.checkpoints.read_newest().step == 10  # type: ignore[union-attr]


def test_a_run_resumed_at_its_end_is_not_saved_again(tmp_path: Path) -> None:
    first = make_session(tmp_path)
    train(first)
    written = (tmp_path / "checkpoints" / "10" / "state.json").stat().st_mtime_ns
    second = make_session(tmp_path, metrics=first.metrics)
    resume(second, first.checkpoints.read_newest())  # type: ignore[arg-type]
    assert train(second)
    assert (tmp_path / "checkpoints" / "10" / "state.json").stat().st_mtime_ns == written


def test_the_weights_are_hashed_right_before_the_first_update_and_each_device_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_session(tmp_path, stop_requested=lambda: True)
    with torch.no_grad():
        first.parts.model.weight.fill_(3.0)  # type: ignore[union-attr, operator]
    expected = weights_hash(first.parts.model)
    assert not train(first)
    monkeypatch.setattr(rank_report, "device_name", lambda device: "another")
    for _ in range(2):
        second = make_session(tmp_path, metrics=first.metrics, stop_requested=lambda: True)
        resume(second, first.checkpoints.read_newest())  # type: ignore[arg-type]
        assert not train(second)
    assert first.state.initial_weights == second.state.initial_weights == expected
    assert second.state.devices == [*first.state.devices, "another"]


class FakeMethod(Method):
    name = "fake"

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.finished = 0

    def after_step(self, model: torch.nn.Module, progress: float) -> None:
        self.seen.append(progress)

    def finish(self, model: torch.nn.Module) -> None:
        self.finished += 1

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"seen": torch.tensor(self.seen)}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
        self.seen = tensors["seen"].tolist()


def test_methods_see_each_update_are_saved_and_finish(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    first, second = FakeMethod(), FakeMethod()
    session = make_session(tmp_path, methods=Methods([first]), stop_requested=lambda: next(asked))
    assert not train(session)
    assert first.finished == 0
    resumed = make_session(tmp_path, methods=Methods([second]), metrics=session.metrics)
    checkpoint = session.checkpoints.read_newest()
    assert checkpoint is not None
    resume(resumed, checkpoint)
    assert train(resumed)
    assert second.seen == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert second.finished == 1
    assert resumed.clock.seconds("methods") > 0


class PointsMethod(Method):
    """Doubles the rows of an update, trains on the second half of them, and notes when it is called."""

    name = "points"

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.nats: list[list[float]] = []

    def rows(self, rows: int, progress: float) -> int:
        return 2 * rows + 1

    def select(self, source: RowSource, rows: int, progress: float) -> Any:
        taken = source.take(rows)
        self.calls.append(("select", len(taken.tokens)))
        self.nats.append(source.nats_per_row(taken)[0].tolist())
        return taken[len(taken.tokens) // 2 :]

    def before_update(self, model: torch.nn.Module, optimizer: Any, progress: float) -> None:
        self.calls.append(("before_update", len(optimizer.multipliers)))


def test_a_method_chooses_the_rows_of_an_update_and_what_it_takes_is_charged(tmp_path: Path) -> None:
    method = PointsMethod()
    session = make_session(tmp_path, batch=8, methods=Methods([method]))
    update(session)
    assert method.calls == [("select", 16), ("before_update", 0)]  # 17 rows are 8 whole micro-batches of 2
    weight = float(session.parts.model.weight.detach())  # type: ignore[operator, union-attr]
    assert method.nats[0] == pytest.approx([row * (row % 3) * weight for row in range(16)])
    settle(session)
    assert session.parts.loader.rows_taken == 16
    assert session.state.predicted == sum(row % 3 for row in range(8, 16))
    assert session.clock.positions == 8 * SEQ_LEN  # those that were trained on
    assert session.parts.work.state()["overhead"] == {"forward": {"1": 16}}
    assert session.parts.work.state()["main"] == {"optimizer": {"adamw/1": 1}, "training": {"1": 8}}
    assert session.clock.seconds("methods") > 0.0


def test_the_size_of_an_update_follows_the_noise_scale_and_never_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = iter([None, 5.0, 30.0, 20.0, 80.0, 10.0, 1000.0, 1000.0])
    changes = {"noise_share": 2.0, "batch_tokens": lambda progress: SEQ_LEN * (4 + 36 * progress)}
    session = make_session(tmp_path, "8steps", **changes)
    monkeypatch.setattr(NoiseScale, "tokens", lambda self: next(scales))
    session.state.noise_scale.measured = loop.NOISE_MEASUREMENTS
    save(session)
    rows = []
    for _ in range(6):
        before = session.parts.loader.rows_taken
        update(session)
        rows.append(session.parts.loader.rows_taken - before)
    assert rows == [4, 4, 4, 16, 16, 40]  # two scales in rows of 4 tokens, rounded to micro-batches of 2, from 4 to 40
    save(session)
    resumed = make_session(tmp_path, "8steps", **changes)
    checkpoint = resumed.checkpoints.read_newest()
    assert checkpoint is not None
    resume(resumed, checkpoint)
    assert resumed.state.noise_tokens == session.state.noise_tokens == 160.0
    assert update_rows(resumed, 0.9) == 40
    few = make_session(tmp_path / "few", "8steps", **changes)
    few.state.noise_scale.measured = loop.NOISE_MEASUREMENTS - 1
    update(few)
    assert few.state.noise_tokens == 0.0
