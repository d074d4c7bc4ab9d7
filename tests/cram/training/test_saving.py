"""Checkpoints at shares of the budget."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.training import FaultsConfig
from cram.training.loop import train
from cram.training.restoring import resume
from cram.training.session import Session
from tests.cram.training.fake_session import make_session


def kept(session: Session) -> list[int]:
    """Return the updates of the checkpoints that are kept, in rising order."""
    checkpoints = session.checkpoints
    return sorted(step for step in checkpoints.steps() if checkpoints.read_state(step)["kept"])


@settings(max_examples=15, deadline=None)
@given(shares=st.lists(st.floats(0.01, 0.99), max_size=3), stop=st.integers(1, 12))
def test_the_first_checkpoint_at_or_after_each_share_is_kept_whether_or_not_the_run_is_stopped(
    shares: list[float], stop: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run, updates = tmp_path_factory.mktemp("run"), 0

    def stop_requested() -> bool:
        nonlocal updates
        updates += 1
        return updates == stop

    session = make_session(run, checkpoint_shares=tuple(shares), stop_requested=stop_requested)
    while not train(session):
        session = make_session(
            run, checkpoint_shares=tuple(shares), stop_requested=stop_requested, metrics=session.metrics
        )
        checkpoint = session.checkpoints.read_newest()
        assert checkpoint is not None
        resume(session, checkpoint)
    assert kept(session) == sorted({next(n for n in range(11) if n / 10 >= share) for share in shares})


def test_a_share_that_is_reached_amid_a_row_of_faults_waits_for_their_end(tmp_path: Path) -> None:
    session = make_session(
        tmp_path, checkpoint_shares=(0.4, 0.5), faults=FaultsConfig(patience=9, spike=1e9), budget="10steps"
    )
    losses = session.parts.objective.loss
    sick = {4, 5, 6}  # updates
    session.parts.objective.loss = lambda model, batch: (  # type: ignore[method-assign]
        losses(model, batch) * (math.nan if session.clock.updates + 1 in sick else 1.0)
    )
    assert train(session)
    assert session.state.faults.skipped == 3
    assert kept(session) == [7]
