"""The number of threads is measured; the machine is a fake whose pace depends on the number."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from cram.budget import Budget
from cram.clock import Clock
from cram.run.metrics import read_metrics
from cram.training import threads
from cram.training.loop import train
from cram.training.restoring import checkpoint_state
from cram.training.session import Session
from cram.training.thread_watch import ThreadWatch
from cram.training.threads import (
    fit_threads,
    numbers_to_try,
    pick_threads,
    threads_are_measured,
    threads_changed,
    time_in_turns,
    time_single_rows,
)
from tests.cram.training.fake_session import FakeBatch, FakeObjective, make_session


class FakeMachine:
    """A clock hand that each pass moves on; a row takes the seconds of the present number of threads."""

    def __init__(self, seconds: dict[int, float], start: int) -> None:
        self.now, self.seconds, self.threads = 0.0, seconds, start
        self.set: list[int] = []

    def __call__(self) -> float:
        return self.now

    def set_threads(self, number: int | None) -> int:
        assert number
        self.threads = number
        self.set.append(number)
        return number

    def compute(self, rows: int) -> None:
        self.now += rows * self.seconds[self.threads]


class TimedObjective(FakeObjective):
    """Passes take the time of the fake machine; something may happen after a number of them."""

    def __init__(self, machine: FakeMachine) -> None:
        super().__init__()
        self.machine, self.rows = machine, 0

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        self.machine.compute(len(batch.values))
        return super().loss(model, batch)


def session_on(
    machine: FakeMachine, folder: Path, monkeypatch: pytest.MonkeyPatch, budget: str = "1000s", **changes: Any
) -> Session:
    most = max(machine.seconds)
    monkeypatch.setattr(threads, "cores", lambda: most)
    monkeypatch.setattr(threads, "set_threads", machine.set_threads)
    clock = Clock(Budget.parse(budget), now=machine)
    changes = {"objective": TimedObjective(machine), "micro_rows": 8, "rows": 10**6, **changes}
    return make_session(folder, clock=clock, threads=machine.threads, **changes)


def test_all_cores_one_fewer_and_one_are_tried() -> None:
    assert [numbers_to_try(most) for most in (1, 2, 3, 4, 64)] == [[1], [2, 1], [3, 2, 1], [4, 3, 1], [64, 63, 1]]


def test_the_larger_number_wins_what_is_about_a_tie() -> None:
    assert pick_threads({2: 1.0, 1: 1.0}) == 2
    assert pick_threads({2: 1.04, 1: 1.0}) == 2
    assert pick_threads({2: 1.06, 1: 1.0}) == 1
    assert pick_threads({4: 1.3, 3: 1.0, 1: 2.0}) == 3


def test_the_first_pass_of_a_single_row_does_not_count() -> None:
    times = {2: iter([9.0, 3.0, 2.0, 1.0]), 1: iter([0.0, 5.0, 5.0, 7.0])}
    assert time_single_rows([2, 1], lambda number: next(times[number])) == {2: 2.0, 1: 5.0}


def test_numbers_take_turns_and_the_slow_ones_are_left_out() -> None:
    asked: list[int] = []
    seconds = {4: 1.0, 3: 1.2, 1: 3.0}

    def time_batch(number: int) -> float:
        asked.append(number)
        return seconds[number] if len(asked) != 4 else 50.0  # held up once

    assert time_in_turns([4, 3, 1], time_batch, lambda: len(asked) >= 9) == {4: 1.0, 3: 1.2, 1: 3.0}
    assert asked == [4, 3, 1, 4, 3, 4, 3, 4, 3]
    asked.clear()
    assert list(time_in_turns([2, 1], lambda number: asked.append(number) or 1.0, lambda: True)) == [2, 1]
    assert asked == [2, 1]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [({2: 0.010, 1: 0.017}, 2), ({2: 0.080, 1: 0.015}, 1), ({4: 0.010, 3: 0.006, 1: 0.017}, 3)],
    ids=["quiet", "one core busy", "one of four busy"],
)
def test_the_fastest_number_is_found_and_recorded(
    seconds: dict[int, float], best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    machine = FakeMachine(seconds, start=max(seconds))
    session = session_on(machine, tmp_path, monkeypatch)
    assert threads_are_measured(session)
    fit_threads(session)
    assert session.threads == machine.threads == best
    clock = session.clock
    assert clock.seconds_per_position == pytest.approx(seconds[best] / session.parts.seq_len)
    assert clock.charged() == pytest.approx(machine.now)
    assert machine.now <= 2.0
    assert clock.seconds("updates") == 0.0
    (choice,) = session.state.thread_choices
    assert (choice["update"], choice["threads"]) == (0, best)
    assert choice["tokens_per_second"] == {
        str(number): pytest.approx(session.parts.seq_len / pace, rel=1e-3) for number, pace in seconds.items()
    }
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["kind"], line["threads"]) == ("threads", best)
    assert line["tokens_per_second"] == choice["tokens_per_second"]
    assert capsys.readouterr().out.startswith(f"CPU threads: {best} (tokens a second: ")
    assert session.parts.loader.rows_taken == 0
    assert not threads_changed(session)
    assert checkpoint_state(session)["thread_choices"] == [choice]


def test_a_number_that_is_hopeless_has_no_whole_micro_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine({16: 0.01, 15: 0.01, 1: 0.16}, start=16)
    fit_threads(session_on(machine, tmp_path, monkeypatch))
    assert machine.set[-1] == 16
    assert machine.set.count(1) == 4  # single rows
    assert machine.now < 3.0


def test_a_short_budget_has_a_short_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine({2: 1e-4, 1: 1e-4}, start=2)
    fit_threads(session_on(machine, tmp_path, monkeypatch, budget="10s"))
    assert 0.2 < machine.now < 0.21


@pytest.mark.parametrize("budget", ["100steps", "1e6tokens"])
def test_a_budget_that_is_not_one_of_time_never_measures(
    budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not threads_are_measured(session_on(FakeMachine({2: 1.0, 1: 1.0}, 2), tmp_path, monkeypatch, budget))


def test_one_core_or_a_gpu_needs_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not threads_are_measured(session_on(FakeMachine({1: 1.0}, 1), tmp_path, monkeypatch))
    machine = FakeMachine({2: 1.0, 1: 1.0}, 2)
    assert not threads_are_measured(session_on(machine, tmp_path, monkeypatch, device=torch.device("cuda")))


class BusyLater(TimedObjective):
    """One core is busy with something else between two moments."""

    def __init__(self, machine: FakeMachine, begins: float, ends: float) -> None:
        super().__init__(machine)
        self._quiet, self._begins, self._ends = dict(machine.seconds), begins, ends

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        is_busy = self._begins <= self.machine.now < self._ends
        self.machine.seconds = {2: 2.5 * self._quiet[2], 1: self._quiet[1]} if is_busy else self._quiet
        return super().loss(model, batch)


def train_on_busy_machine(folder: Path, monkeypatch: pytest.MonkeyPatch, begins: float, ends: float) -> Session:
    machine = FakeMachine({2: 0.05, 1: 0.1}, 2)
    objective = BusyLater(machine, begins, ends)
    session = session_on(machine, folder, monkeypatch, budget="600s", objective=objective)
    fit_threads(session)
    assert train(session)
    assert machine.threads == session.threads
    assert abs(session.clock.charged() - 600.0) < 1.0
    return session


def test_the_number_follows_a_core_that_is_busy_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = train_on_busy_machine(tmp_path, monkeypatch, 100.0, 200.0)
    numbers = [choice["threads"] for choice in session.state.thread_choices]
    assert [number for number, _ in itertools.groupby(numbers)] == [2, 1, 2]
    assert threads_changed(session)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "threads"]
    assert [line["threads"] for line in lines] == numbers
    down, up = (
        next(line["charged_seconds"] for line in lines if line["threads"] == number and line["charged_seconds"] > after)
        for number, after in ((1, 0.0), (2, 100.0))
    )
    assert 100.0 < down < 120.0
    assert 200.0 < up < 350.0
    out = capsys.readouterr().out
    assert out.count("CPU threads: 1 instead of 2 from update ") == 1
    assert out.count("CPU threads: 2 instead of 1 from update ") == 1
    clock = session.clock
    assert clock.stalls == 0
    assert clock.seconds("probe") + clock.seconds("compilation") < 0.02 * 600.0


def test_a_machine_that_stays_quiet_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = train_on_busy_machine(tmp_path, monkeypatch, 1e9, 1e9)
    assert [choice["threads"] for choice in session.state.thread_choices] == [2]


def test_a_resumed_run_keeps_its_number_unless_the_cores_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine({2: 0.01, 1: 0.02}, 1)
    session = session_on(machine, tmp_path, monkeypatch)
    session.state.processes = [{"environment": {"cores": 2}}]
    fit_threads(session)
    assert (session.threads, machine.now, session.state.thread_choices) == (1, 0.0, [])
    assert isinstance(session.thread_watch, ThreadWatch)
    session.state.processes = [{"environment": {"cores": 8}}]
    fit_threads(session)
    assert session.threads == 2


def test_nothing_is_measured_where_no_rows_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine({2: 0.01, 1: 0.02}, 2)
    fit_threads(session_on(machine, tmp_path, monkeypatch, rows=7))
    assert machine.now == 0.0
