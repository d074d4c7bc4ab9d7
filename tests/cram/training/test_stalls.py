"""Updates that take far too long, and the accounts that their time goes to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cram.budget import Budget
from cram.clock import Clock
from cram.training import records
from cram.training.loop import train
from cram.training.session import Session
from tests.cram.training.fake_session import SEQ_LEN, FakeBatch, FakeObjective, make_session


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

    def evaluate(rows: Any, ranks: Any) -> dict[str, float]:
        hand.now += 100.0
        return {"nats_per_token": 1.0}

    clock = Clock(Budget.parse("10steps"), now=hand)
    objective = Slow(hand, 99, lambda: None)
    train(make_session(tmp_path, clock=clock, objective=objective, evaluate=evaluate, evaluation_interval=0.25))
    assert (clock.stalls, clock.seconds("evaluation"), clock.seconds("updates")) == (0, 300.0, 40.0)
