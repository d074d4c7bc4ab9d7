"""Passes that measure speed: forward and backward on rows that count as not taken, with the gradients thrown away."""

import statistics

import torch

from cram.distributed.orders import on_all_ranks
from cram.machine.device import is_out_of_memory, synchronize
from cram.training.gradients import backward, halve_micro_batch
from cram.training.session import RankSession, Session

PROBE_SECONDS = 1.0  # that the passes of one measurement take together
LONE_PASSES = 3


@on_all_ranks("probing")
def run_pass(session: RankSession, rows: int) -> bool:
    """Run a pass over so many rows of the model on each rank, of the phase that the run is in.

    Returns:
        Whether it fitted into the memory of every rank.
    """
    fits = _fits(session, rows)
    return not session.ranks.largest(torch.tensor([not fits], dtype=torch.uint8)).any()


def _fits(session: RankSession, rows: int) -> bool:
    objective, progress = session.parts.objective, session.state.last_progress
    batch = objective.prepare(session.parts.loader.peek(rows * objective.rows_joined(progress)), progress)
    fits = True
    try:
        backward(session, batch, 1.0)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    session.parts.model.zero_grad(set_to_none=True)
    synchronize(session.parts.device)
    return fits


def run_or_halve(session: Session) -> None:
    """Run a pass over a micro-batch, or halve the micro-batch if that runs out of memory.

    Raises:
        CramError: where the micro-batch is one row already.
    """
    if not run_pass(session, session.state.micro_rows):
        halve_micro_batch(session)


def time_pass(session: Session, rows: int | None = None) -> float:
    """Time a pass over so many rows (None: a micro-batch), by the clock of the session, to whose probe it is booked.

    Args:
        rows: of the model, on each rank.

    Returns:
        Seconds per position, of all ranks together.

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
    return seconds / ((rows or session.state.micro_rows) * session.ranks.size * session.parts.seq_len)


def measure_lone_pace(session: Session) -> None:
    """Measure the pace of passes of rank 0 while the other ranks wait, with which the scaling is compared.

    A pass on all ranks comes first. It makes their buffers, and shows their watch how long a pass takes.
    """
    if session.ranks.alone or session.parts.loader.rows_left < session.step_rows:
        return
    time_pass(session)
    clock, rows, paces = session.clock, session.state.micro_rows, []
    with clock.account("probe"):
        for _ in range(LONE_PASSES):
            began = clock.seconds("probe")
            _fits(session, rows)
            paces.append((clock.seconds("probe") - began) / (rows * session.parts.seq_len))
    session.state.lone_tokens_per_second = 1.0 / max(statistics.median_low(paces), 1e-12)
