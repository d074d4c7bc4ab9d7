"""Passes that measure speed: forward and backward on rows that count as not taken, with the gradients thrown away."""

import torch

from cram.machine.device import is_out_of_memory, synchronize
from cram.training.gradients import backward, halve_micro_batch
from cram.training.session import Session

PROBE_SECONDS = 1.0  # that the passes of one measurement take together


def run_pass(session: Session, rows: int) -> None:
    """Run a pass over so many rows of the model, of the phase that the run is in."""
    objective, progress = session.parts.objective, session.state.last_progress
    batch = objective.prepare(session.parts.loader.peek(rows * objective.rows_joined(progress)), progress)
    backward(session, batch, 1.0)
    session.parts.model.zero_grad(set_to_none=True)
    synchronize(session.parts.device)


def run_or_halve(session: Session) -> None:
    """Run a pass over a micro-batch, or halve the micro-batch if that runs out of memory.

    Raises:
        CramError: where the micro-batch is one row already.
    """
    try:
        run_pass(session, session.state.micro_rows)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        halve_micro_batch(session)


def time_pass(session: Session, rows: int | None = None) -> float:
    """Time a pass over so many rows (None: a micro-batch), by the clock of the session, to whose probe it is booked.

    Returns:
        Seconds per position.

    Raises:
        CramError: where one row does not fit into memory.
    """
    clock = session.clock
    with clock.account("probe"):
        began = clock.seconds("probe")
        if rows is None:
            run_or_halve(session)
        else:
            run_pass(session, rows)
        seconds = clock.seconds("probe") - began
    return seconds / ((rows or session.state.micro_rows) * session.parts.seq_len)
