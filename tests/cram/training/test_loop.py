"""The loop over fake parts: what it asks of them, in which order, and with which numbers."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.clock import Budget, Clock
from cram.config.training import FaultsConfig
from cram.errors import CramError
from cram.methods.method import Method, Methods
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import Metrics, read_metrics
from cram.training import loop, records
from cram.training.gradients import accumulate
from cram.training.loop import predicted_progress, save, settle, train, update, update_rows
from cram.training.loss_scale import LossScale
from cram.training.session import LoopConfig, Parts, RunState, Session, resume, weights_hash

SEQ_LEN = 4
CALM = FaultsConfig(spike=1e9)  # the loss of the fake objective grows with the rows


class FakeLoader:
    """Rows that hold their own number."""

    def __init__(self, rows: int) -> None:
        self.rows_total, self.rows_taken = rows, 0

    @property
    def rows_left(self) -> int:
        return self.rows_total - self.rows_taken

    def peek(self, n: int) -> "FakeRows":
        return FakeRows(np.arange(self.rows_taken, self.rows_taken + n, dtype=np.float32))

    def next(self, n: int) -> "FakeRows":
        rows = self.peek(n)
        self.rows_taken += n
        return rows

    def state(self) -> dict[str, Any]:
        return {"taken": self.rows_taken}

    def resume(self, state: dict[str, Any]) -> None:
        self.rows_taken = state["taken"]


@dataclass
class FakeRows:
    tokens: np.ndarray

    def __getitem__(self, part: slice) -> "FakeRows":
        return FakeRows(self.tokens[part])


@dataclass
class FakeBatch:
    values: torch.Tensor
    predicted: int

    def to(self, device: torch.device) -> "FakeBatch":
        return self


class FakeObjective:
    """Row n has n % 3 predicted tokens; its loss is the weight times the row's number, for each."""

    phases: tuple[float, ...] = (0.0,)

    def __init__(self) -> None:
        self.progress: list[float] = []
        self.largest = 10**9

    def prepare(self, rows: FakeRows, progress: float) -> FakeBatch:
        self.progress.append(progress)
        return FakeBatch(torch.from_numpy(rows.tokens), int((rows.tokens % 3).sum()))

    def nats_per_row(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        return model.weight.flatten() * batch.values * (batch.values % 3)

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        if len(batch.values) > self.largest:
            raise torch.OutOfMemoryError("fake")
        return (model.weight * batch.values * (batch.values % 3)).sum()


class FakeOptimizer:
    def __init__(self, model: torch.nn.Module) -> None:
        self.multipliers: list[float] = []
        self.gradients: list[float] = []
        self.finite: list[bool] = []
        self._model = model

    def step(self, multiplier: float, progress: float, finite: torch.Tensor) -> None:
        self.multipliers.append(multiplier)
        self.finite.append(bool(finite))
        self.gradients.append(sum(float(p.grad.sum()) for p in self._model.parameters() if p.grad is not None))

    def lr(self) -> float:
        return self.multipliers[-1]

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"nothing": torch.zeros(1)}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        pass


def make_session(run: Path, budget: str = "10steps", rows: int = 1000, batch: int = 8, **changes: Any) -> Session:
    """A session of fake parts; `changes` are fields of the session, its parts, its config or its state."""
    model = torch.nn.Linear(1, 1, bias=False)
    fields: dict[str, Any] = {
        "model": model,
        "objective": FakeObjective(),
        "optimizer": FakeOptimizer(model),
        "methods": Methods(),
        "loader": FakeLoader(rows),
        "schedule": lambda progress: 1.0 - progress,
        "decay_begins": 0.0,
        "batch_tokens": lambda progress: batch * SEQ_LEN,
        "held_out": None,
        "evaluate": lambda rows: {"nats_per_token": 1.0},
        "device": torch.device("cpu"),
        "precision": torch.float32,
        "loss_scale": None,
        "seq_len": SEQ_LEN,
        "clip": None,
        "faults": CALM,
        "log_interval": 3,
        "checkpoint_seconds": 1e9,
        "evaluation_interval": None,
        "micro_rows": 2,
        "clock": Clock(Budget.parse(budget)),
        "checkpoints": Checkpoints(run),
        "show": lambda progress, figures: None,
        "stop_requested": lambda: False,
        "threads": 1,
        **changes,
    }
    fields["metrics"] = fields.get("metrics") or Metrics(run)

    def take(schema: Any, *names: str) -> dict[str, Any]:
        names = names or tuple(item.name for item in dataclasses.fields(schema))
        return {name: fields[name] for name in names}

    names = ("clock", "metrics", "checkpoints", "show", "stop_requested", "threads")
    return Session(
        parts=Parts(**take(Parts)),
        config=LoopConfig(**take(LoopConfig)),
        state=RunState(micro_rows=fields["micro_rows"]),
        **take(Session, *names),
    )


def test_the_gradient_is_the_sum_over_predicted_tokens_divided_by_their_count(tmp_path: Path) -> None:
    rows = FakeRows(np.arange(8, dtype=np.float32))
    count = (rows.tokens % 3).sum()
    expected = (rows.tokens * (rows.tokens % 3)).sum() / count
    for micro in (1, 2, 4, 8):  # a mean of micro-batch means would differ
        session = make_session(tmp_path / str(micro), micro_rows=micro)
        predicted, nats = accumulate(session, rows, 0.5)
        assert predicted == count
        assert float(session.parts.model.weight.grad) == pytest.approx(expected)  # type: ignore[arg-type, union-attr]
        assert float(nats) == pytest.approx(float(session.parts.model.weight.detach()) * expected * count, rel=1e-5)  # type: ignore[arg-type]


def test_an_update_without_a_predicted_token_is_no_division_by_zero(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    predicted, nats = accumulate(session, FakeRows(np.zeros(4, np.float32)), 0.5)
    assert (predicted, float(nats)) == (0, 0.0)
    assert float(session.parts.model.weight.grad) == 0.0  # type: ignore[arg-type, union-attr]


def test_out_of_memory_halves_the_micro_batch_and_changes_no_gradient(tmp_path: Path) -> None:
    session = make_session(tmp_path / "a", micro_rows=8)
    session.parts.objective.largest = 3  # type: ignore[attr-defined]
    roomy = make_session(tmp_path / "b", micro_rows=8)
    roomy.parts.model.load_state_dict(session.parts.model.state_dict())
    rows = FakeRows(np.arange(8, dtype=np.float32))
    accumulate(session, rows, 0.5)
    accumulate(roomy, rows, 0.5)
    assert (session.state.micro_rows, session.state.out_of_memory) == (2, 2)
    assert torch.equal(session.parts.model.weight.grad, roomy.parts.model.weight.grad)  # type: ignore[arg-type]


def test_a_row_that_does_not_fit_is_told_to_the_user(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.parts.objective.largest = 0  # type: ignore[attr-defined]
    with pytest.raises(CramError, match=r"one row of 4 tokens does not fit.*data\.seq_len"):
        accumulate(session, FakeRows(np.ones(2, np.float32)), 0.5)


def test_other_errors_are_not_swallowed(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.parts.objective.loss = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes differ"):
        accumulate(session, FakeRows(np.ones(2, np.float32)), 0.5)


def test_each_update_takes_the_schedule_at_its_predicted_end(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    assert train(session)
    expected = [1.0 - (step + 1) / 10 for step in range(10)]
    assert session.parts.optimizer.multipliers == pytest.approx(expected)  # type: ignore[attr-defined]
    assert session.parts.optimizer.multipliers[-1] == 0.0  # type: ignore[attr-defined]


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


class Hand:
    """A clock hand that moves a second whenever the objective computes a loss, and by what a test adds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(FakeObjective):
    """Each micro-batch takes a second; at one update something happens."""

    def __init__(self, hand: Hand, at: int, happens: Callable[[], None]) -> None:
        super().__init__()
        self._hand, self._at, self._happens = hand, at, happens

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        self._hand.now += 1.0
        if int(batch.values[0]) == 8 * self._at:
            self._happens()
        return super().loss(model, batch)


def run_slowly(folder: Path, happens: Callable[[Hand, Session], None], **changes: Any) -> Session:
    """Ten updates of four seconds, and what happens in the eighth."""
    hand = Hand()
    objective = Slow(hand, 7, lambda: happens(hand, session))
    clock = Clock(Budget.parse("10steps"), now=hand)
    session = make_session(folder, clock=clock, objective=objective, **changes)
    assert train(session)
    assert clock.charged() == hand.now
    return session


def test_a_process_that_stands_still_in_an_update_has_a_stall(tmp_path: Path) -> None:
    def stop(hand: Hand, _: Session) -> None:
        hand.now += 100.0

    clock = run_slowly(tmp_path, stop).clock
    assert (clock.stalls, clock.seconds("stalls"), clock.seconds("updates")) == (1, 100.0, 40.0)
    assert clock.seconds_per_position == 4.0 / (8 * SEQ_LEN)


def test_an_update_that_compiles_or_runs_out_of_memory_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_more(hand: Hand, _: Session) -> None:
        hand.now += 100.0
        monkeypatch.setattr(records, "compiled_graphs", lambda: 10**6)

    def halve(hand: Hand, session: Session) -> None:
        hand.now += 100.0
        session.state.out_of_memory += 1

    compiling = run_slowly(tmp_path / "a", compile_more).clock
    assert (compiling.stalls, compiling.seconds("compilation"), compiling.seconds("updates")) == (0, 100.0, 40.0)
    halving = run_slowly(tmp_path / "b", halve).clock
    assert (halving.stalls, halving.seconds("updates")) == (0, 140.0)


def test_time_spent_on_evaluation_and_saving_is_no_stall(tmp_path: Path) -> None:
    hand = Hand()

    def evaluate(rows: Any) -> dict[str, float]:
        hand.now += 100.0
        return {"nats_per_token": 1.0}

    clock = Clock(Budget.parse("10steps"), now=hand)
    objective = Slow(hand, 99, lambda: None)
    train(make_session(tmp_path, clock=clock, objective=objective, evaluate=evaluate, evaluation_interval=0.25))
    assert (clock.stalls, clock.seconds("evaluation"), clock.seconds("updates")) == (0, 300.0, 40.0)


def test_the_ramp_gives_whole_micro_batches(tmp_path: Path) -> None:
    session = make_session(tmp_path, batch_tokens=lambda progress: SEQ_LEN * (2 + 18 * progress), micro_rows=4)
    assert [update_rows(session, progress) for progress in (0.0, 0.5, 1.0)] == [4, 12, 20]


def test_lines_of_metrics_sum_up_their_window(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    train(session)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert lines[-1]["progress"] == 1.0
    rows = np.arange(24, dtype=np.float32)
    weight = float(session.parts.model.weight.detach())  # type: ignore[arg-type]
    assert lines[0]["loss"] == pytest.approx(weight * (rows * (rows % 3)).sum() / (rows % 3).sum(), rel=1e-5)
    assert lines[0]["batch_tokens"] == 8 * SEQ_LEN


def test_evaluation_comes_at_each_share_and_is_not_charged(tmp_path: Path) -> None:
    session = make_session(tmp_path, evaluation_interval=0.25)
    train(session)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "held_out"] == [3, 5, 8]
    assert session.clock.seconds("evaluation") > 0
    assert session.clock.charged() == pytest.approx(
        session.clock.seconds("updates") + session.clock.seconds("waiting"), abs=1e-3
    )


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
    assert multipliers[6:8] == pytest.approx([0.3, 0.5 * 0.2])
    faults = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "fault"]
    assert [(line["event"], line["step"], line["to_step"]) for line in faults] == [("rollback", 7, 0)]


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


def test_a_spike_is_recorded(tmp_path: Path) -> None:
    session = make_session(tmp_path, log_interval=1, faults=FaultsConfig(spike=1.0))
    with torch.no_grad():
        session.parts.model.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    train(session)  # the loss of row n grows with n
    session.metrics.close()
    faults = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "fault"]
    assert faults and all(line["event"] == "spike" and line["loss"] > line["recent"] + 1 for line in faults)
    assert len(session.state.faults.spikes) == len(faults)


def test_a_phase_begins_a_window_of_its_own_and_its_jump_is_no_spike(tmp_path: Path) -> None:
    class Phased(FakeObjective):
        phases = (0.0, 0.6)

        def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
            harder = 100.0 if self.progress[-1] >= 0.6 else 1.0
            return harder * (model.weight * (batch.values % 3)).sum()

    session = make_session(tmp_path, objective=Phased(), log_interval=4, faults=FaultsConfig(spike=50.0))
    with torch.no_grad():
        session.parts.model.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    train(session)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["kind"] for line in lines] == ["train", "train", "phase", "train", "train"]
    assert [line["step"] for line in lines] == [4, 5, 5, 8, 10]
    assert [line["loss"] for line in lines if line["kind"] == "train"] == pytest.approx([1.0, 1.0, 100.0, 100.0])
    assert session.state.faults.spikes == []


def test_figures_in_flight_are_counted_once_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, lagging = make_session(tmp_path / "a"), make_session(tmp_path / "b")
    lagging.parts.model.load_state_dict(straight.parts.model.state_dict())
    train(straight)
    # As on a GPU: the newest update stays in flight, but for the last one.
    monkeypatch.setattr(
        loop,
        "settle",
        lambda session, keep=0: settle(session, 1 if keep == 0 and session.state.last_progress < 1 else keep),
    )
    seen = []
    lagging.show = lambda progress, figures: seen.append(len(lagging.in_flight))
    train(lagging)
    assert seen == [1, 1, 1, 0]
    for session in (straight, lagging):
        session.metrics.close()
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("a", "b"))
    assert [line["step"] for line in theirs] == [2, 5, 8, 10]
    assert [line["positions"] for line in theirs] == [8 * SEQ_LEN * line["step"] for line in theirs]
    predicted = [
        sum(row % 3 for row in range(8 * first, 8 * last)) for first, last in ((0, 2), (2, 5), (5, 8), (8, 10))
    ]
    whole = [sum(row % 3 for row in range(8 * first, 8 * last)) for first, last in ((0, 3), (3, 6), (6, 9), (9, 10))]
    sums = [
        sum(line["loss"] * count for line, count in zip(lines, counts, strict=True))
        for lines, counts in ((ours, whole), (theirs, predicted))
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert (lagging.state.predicted, lagging.clock.positions) == (straight.state.predicted, straight.clock.positions)


def test_the_weights_are_hashed_right_before_the_first_update_and_each_device_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_session(tmp_path, stop_requested=lambda: True)
    with torch.no_grad():
        first.parts.model.weight.fill_(3.0)  # type: ignore[union-attr, operator]
    expected = weights_hash(first.parts.model)
    assert not train(first)
    monkeypatch.setattr(loop, "device_name", lambda device: "another")
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

    def select(self, rows: Any, progress: float, nats_per_row: Callable[[Any], torch.Tensor]) -> Any:
        self.calls.append(("select", len(rows.tokens)))
        self.nats.append(nats_per_row(rows).tolist())
        return rows[len(rows.tokens) // 2 :]

    def before_update(self, model: torch.nn.Module, optimizer: Any, progress: float) -> None:
        self.calls.append(("before_update", len(optimizer.multipliers)))


def test_a_method_chooses_the_rows_of_an_update_and_what_it_takes_is_charged(tmp_path: Path) -> None:
    method = PointsMethod()
    session = make_session(tmp_path, batch=8, methods=Methods([method]))
    update(session)
    assert method.calls == [("select", 16), ("before_update", 0)]  # 17 rows are 8 whole micro-batches of 2
    weight = float(session.parts.model.weight)  # type: ignore[arg-type]
    assert method.nats[0] == pytest.approx([row * (row % 3) * weight for row in range(16)])
    settle(session)
    assert session.parts.loader.rows_taken == 16
    assert session.state.predicted == sum(row % 3 for row in range(8, 16))
    assert session.clock.positions == 16 * SEQ_LEN
    assert session.clock.seconds("methods") > 0.0
