"""Writing a checkpoint of a run."""

from cram.machine.device import synchronize
from cram.training.records import settle
from cram.training.session import Session, checkpoint_state, checkpoint_tensors


def save(session: Session) -> None:
    """Write a checkpoint. Its time is not charged."""
    settle(session)
    with session.clock.account("saving"):
        synchronize(session.parts.device)
        session.metrics.flush()
        weights, memory = checkpoint_tensors(session.parts)
        session.checkpoints.save(session.clock.updates, weights, memory, checkpoint_state(session))
    session.saved = session.clock.updates
