"""The rhythm of training: take rows, hide tokens, accumulate, update, record, until the budget is spent.

The loop knows its parts only as protocols (`cram.training.session`); `cram.build` chooses them.
"""

import math
import time
from dataclasses import asdict
from typing import Any

import torch

from cram.machine.device import device_name, synchronize
from cram.training.compilation import compiled_graphs
from cram.training.gradients import accumulate, clip
from cram.training.session import Launched, Session, Window, weights_hash


def train(session: Session) -> bool:
    """Train until the budget, or the data, is spent. False when interrupted; the state is saved either way."""
    if (name := device_name(session.device)) not in session.devices:
        session.devices.append(name)
    if session.saved is None:
        with session.clock.account("saving"):
            session.initial_weights = weights_hash(session.model)
        save(session)  # what a fault returns to before there is another
    saved_at = time.monotonic()
    # All that the loop does is charged to the updates, but for what it books elsewhere.
    with session.clock.account("updates"):
        session.clock.begin_updates()
        session.slow_before = slow_so_far(session)
        while session.last_progress < 1.0 and session.loader.rows_left >= session.micro_rows:
            before = session.last_progress
            update(session)
            if session.faults.in_a_row >= session.faults_config.patience and session.last_progress < 1.0:
                roll_back(session)
            if session.clock.updates % session.log_interval == 0 or session.last_progress == 1.0:
                log(session)
            if _crosses(session.evaluation_interval, before, session.last_progress):
                record_evaluation(session)
            if session.stop_asked():
                save(session)
                return False
            # Weights amid a row of faults may be the reason for them: nothing to return to.
            if time.monotonic() - saved_at >= session.checkpoint_seconds and not session.faults.in_a_row:
                save(session)
                saved_at = time.monotonic()
        if session.clock.updates != session.saved:
            save(session)
    with session.clock.account("methods"):
        for method in session.methods:
            method.finish(session.model)
    return True


def update(session: Session) -> None:
    """One update: as many rows as the ramp asks for, at the progress its end is predicted to have.

    A GPU is given the next update before the figures of this one are read, so that it never waits for the host.
    """
    rows = update_rows(session, session.last_progress)
    progress = predicted_progress(session, rows)
    keep_before_decay(session, progress)
    if any(session.last_progress < phase <= progress for phase in session.objective.phases):
        begin_phase(session)
    with session.clock.account("waiting"):
        taken = session.loader.next(rows)
    predicted, nats = accumulate(session, taken, progress)
    finite = clip(session, nats)
    session.optimizer.step(session.faults.lr_factor * session.schedule(progress), progress, finite)
    if session.loss_scale:
        session.loss_scale.update()
    session.model.zero_grad(set_to_none=True)
    with session.clock.account("methods"):
        for method in session.methods:
            method.after_step(session.model, progress)
    positions = rows * session.seq_len
    session.in_flight.append(Launched(positions, predicted, torch.stack([nats, finite.float()])))
    session.clock.count_update(positions)
    session.last_progress = progress
    settle(session, keep=0 if session.device.type == "cpu" or progress == 1.0 else 1)


def keep_before_decay(session: Session, progress: float) -> None:
    """Save before the update at whose progress the learning rate begins to fall: a longer budget goes on from there."""
    crosses = session.last_progress <= session.checkpoints.decay < progress
    if crosses and session.saved != session.clock.updates and not session.faults.in_a_row:
        save(session)


def begin_phase(session: Session) -> None:
    """End the window of what was learned before, whose losses say nothing of those to come."""
    settle(session)
    log(session)
    session.faults.recent = None
    record = {"kind": "phase", "step": session.clock.updates, "time": time.time(), "progress": session.last_progress}
    session.metrics.write({**record, "charged_seconds": session.clock.charged()})


def settle(session: Session, keep: int = 0) -> None:
    """Wait for the updates in flight, but for the newest `keep`, and count what they did and how long they took."""
    while len(session.in_flight) > keep:
        done = session.in_flight.pop(0)
        nats, finite = done.wait()  # so that the clock sees the update's true end
        seconds = session.clock.end_update(done.positions, known_reason(session))
        session.faults.count(finite)
        predicted = done.predicted if finite else 0
        session.predicted += predicted
        session.window.add(nats if finite else 0.0, predicted, done.positions, seconds)


def slow_so_far(session: Session) -> dict[str, int]:
    """How often there has been what makes an update slow and is no stall, by the account that such time belongs to."""
    return {"compilation": compiled_graphs(), "updates": session.out_of_memory}


def known_reason(session: Session) -> str:
    """Where the excess of a slow update belongs: to what is known to have happened since the last one, or `stalls`."""
    now, before = slow_so_far(session), session.slow_before
    session.slow_before = now
    return next((account for account in now if now[account] > before.get(account, 0)), "stalls")


def roll_back(session: Session) -> None:
    """Return to the weights of the last checkpoint with a lower learning rate; the clock and the data go on.

    Errors: CramError where that has been tried as often as the config allows.
    """
    settle(session)
    if session.faults.in_a_row < session.faults_config.patience:
        return  # the update that was in flight was a good one
    checkpoint = session.checkpoints.newest()
    assert checkpoint is not None
    rollback = session.faults.roll_back(session.clock.updates, checkpoint.step, session.faults_config)
    session.load_tensors(checkpoint)
    session.clock.begin_updates()
    record_fault(session, "rollback", asdict(rollback))
    print(
        f"warning: the loss was not finite {session.faults_config.patience} updates in a row; back to the weights of "
        f"update {checkpoint.step}, with {rollback.lr_factor:g} times the learning rate.",
        flush=True,
    )


def record_fault(session: Session, event: str, figures: dict[str, Any]) -> None:
    """Write a line about a fault to the metrics."""
    record = {"kind": "fault", "event": event, "step": session.clock.updates, "time": time.time()}
    session.metrics.write({**record, **figures, "charged_seconds": session.clock.charged()})


def wanted_rows(session: Session, progress: float) -> int:
    """Rows of an update at some progress: whole micro-batches, nearest to the ramp's size."""
    micro = session.micro_rows
    return max(1, round(session.batch_tokens(progress) / (micro * session.seq_len))) * micro


def update_rows(session: Session, progress: float) -> int:
    """Rows of the next update: as many as wanted, never more than there are whole micro-batches left."""
    left = session.loader.rows_left
    return min(wanted_rows(session, progress), left - left % session.micro_rows)


def predicted_progress(session: Session, rows: int) -> float:
    """Progress at the end of an update of `rows`: the larger of the clock's share and the data's share.

    1.0 exactly for the last update, be it the budget's or the data's.
    """
    if session.loader.rows_left - rows < session.micro_rows:
        return 1.0
    data_share = (session.loader.rows_taken + rows) / session.loader.rows_total
    progress = session.clock.progress_after(rows * session.seq_len, positions_in_flight(session))
    return max(progress, data_share)


def positions_in_flight(session: Session) -> int:
    """Positions of the updates whose figures have not come back."""
    return sum(launched.positions for launched in session.in_flight)


def log(session: Session) -> None:
    """Write the window's figures to the metrics and show them; begin a new window.

    An update still in flight is the next window's, so that nothing is waited for. The loss of a window without a
    finite update is None.
    """
    if not session.window.updates:
        return
    window, clock = session.window, session.clock
    step = clock.updates - len(session.in_flight)
    loss = window.nats / window.predicted if window.predicted else None
    spike = None if loss is None else session.faults.see(step, loss, session.faults_config)
    if spike:
        record_fault(session, "spike", asdict(spike))
    figures = {
        "loss": loss,
        "lr": session.optimizer.lr(),
        "tokens_per_second": window.positions / max(window.seconds, 1e-9),
        "batch_tokens": window.positions / max(window.updates, 1),
        "progress": session.last_progress,
        "positions": clock.positions - positions_in_flight(session),
        "charged_seconds": clock.charged(),
    }
    session.metrics.write({"kind": "train", "step": step, "time": time.time(), **figures})
    session.show(session.last_progress, figures)
    session.window = Window()


def record_evaluation(session: Session) -> None:
    """Evaluate on the held-out rows, off the clock, and write the figures to the metrics."""
    settle(session)
    with session.clock.account("evaluation"):
        figures = session.evaluate()
    record = {"kind": "held_out", "step": session.clock.updates, "time": time.time(), **figures}
    session.metrics.write({**record, "charged_seconds": session.clock.charged()})


def save(session: Session) -> None:
    """Write a checkpoint, off the clock."""
    settle(session)
    with session.clock.account("saving"):
        synchronize(session.device)
        session.metrics.flush()
        session.checkpoints.save(session.clock.updates, *session.tensors(), session.state())
    session.saved = session.clock.updates


def _crosses(interval: float | None, before: float, after: float) -> bool:
    """Whether a multiple of the interval lies between two progress values; the end is evaluated anyway."""
    return interval is not None and after < 1.0 and math.floor(after / interval) > math.floor(before / interval)
