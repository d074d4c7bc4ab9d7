"""Writing a checkpoint of a run."""

from cram.machine.device import synchronize
from cram.training.rank_report import book_waiting
from cram.training.records import settle
from cram.training.restoring import checkpoint_state, checkpoint_tensors
from cram.training.session import Session


def share_is_due(session: Session) -> bool:
    """Whether progress has reached one of `checkpoint.shares` since the latest checkpoint."""
    before, now = session.saved_progress, session.state.last_progress
    return any(before < share <= now for share in session.config.checkpoint_shares)


def save(session: Session) -> None:
    """Write a checkpoint. Its time is not charged. The first one at or after each of `checkpoint.shares` is kept."""
    settle(session)
    with session.clock.account("saving"), session.ranks.doing("saving"):
        synchronize(session.parts.device)
        session.metrics.flush()
        book_waiting(session)
        weights, memory = checkpoint_tensors(session)
        state, kept = checkpoint_state(session), share_is_due(session)
        session.checkpoints.save(session.clock.updates, weights, memory, state, kept=kept)
    session.saved, session.saved_progress = session.clock.updates, session.state.last_progress
