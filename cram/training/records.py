"""What updates came to: their figures are counted when the device gives them, and written to the metrics."""

import time
from collections.abc import Hashable
from dataclasses import asdict
from typing import Any

from cram.distributed.orders import on_all_ranks
from cram.evaluation.halves import HALVES
from cram.machine.device import peak_gpu_memory
from cram.run.receipt import compute_mfu
from cram.training.compilation import compiled_graphs
from cram.training.noise_scale import NoiseScale
from cram.training.session import RankSession, Session
from cram.training.window import Window

SPIKE_UPDATES = 10  # updates whose mean loss is compared with the recent mean, to find spikes


def settle(session: Session, keep: int = 0) -> None:
    """Wait for the updates in flight except the newest `keep`, and count their tokens, nats and seconds."""
    state = session.state
    while len(session.in_flight) > keep:
        launched = session.in_flight.pop(0)
        nats, norm, finite, norms = launched.wait()  # first, so that the clock sees the true end of the update
        seconds = session.clock.end_update(launched.positions, known_reason(session))
        if session.thread_watch:
            session.thread_watch.count(_kind_of_update(session, launched.positions), launched.positions, seconds)
        state.faults.count(finite)
        if launched.probe and finite:
            state.noise_scale.add(launched.probe, *norms)
        state.predicted += launched.predicted if finite else 0
        for window in (state.window, state.spike_window):
            window.add(launched, nats, norm, finite, seconds)
        _watch_loss(session)


def _watch_loss(session: Session) -> None:
    """Compare the loss of the latest updates with its recent mean, once there are enough of them or no more come.

    The windows have a length of their own, so that `log_interval` changes nothing: a single update is too noisy.
    """
    state, window = session.state, session.state.spike_window
    is_last = state.last_progress == 1.0 and not session.in_flight
    if window.updates < SPIKE_UPDATES and not is_last:
        return
    state.spike_window = Window()
    if (loss := window.loss()) is None:
        return
    spike = state.faults.record_loss(session.clock.updates - len(session.in_flight), loss, session.config.faults)
    if spike:
        record_fault(session, "spike", asdict(spike))


def _kind_of_update(session: Session, positions: int) -> Hashable:
    """Name what the pace of an update depends on beside the machine: phase, size, and what methods do."""
    parts, progress = session.parts, session.state.last_progress
    phase = sum(begin <= progress for begin in parts.objective.phases)
    return phase, positions, *(tuple(method.values(progress).items()) for method in parts.methods)


def positions_in_flight(session: Session) -> int:
    """Count the positions of the updates whose figures have not come back."""
    return sum(launched.positions for launched in session.in_flight)


def slow_so_far(session: Session) -> dict[str, int]:
    """Count the known reasons for a slow update so far, by the account that the time of each belongs to."""
    return {"compilation": compiled_graphs(), "updates": session.state.out_of_memory}


def known_reason(session: Session) -> str:
    """Name the account for the excess of a slow update: a known reason since the last update, or else `stalls`."""
    now, before = slow_so_far(session), session.slow_before
    session.slow_before = now
    return next((account for account in now if now[account] > before.get(account, 0)), "stalls")


def log(session: Session) -> None:
    """Write the figures of the window to the metrics, show them, and begin a new window.

    An update in flight belongs to the next window, so that nothing waits for it. The loss and the norm of a window
    without a finite update are None.
    """
    state, window, parts = session.state, session.state.window, session.parts
    if not window.updates:
        return
    progress = state.last_progress
    figures = {
        "loss": window.loss(),
        "gradient_norm": window.norm / window.finite if window.finite else None,
        "lr": parts.optimizer.lr(),
        **_scheduled(session),
        "tokens_per_second": window.positions / max(window.seconds, 1e-9),
        "mfu": _mfu(session),
        "gpu_memory_bytes": peak_gpu_memory(parts.device),
        "batch_tokens": window.positions / window.updates,
        "noise_scale": state.noise_scale.tokens(),
    }
    record = write_record(session, "train", figures)
    session.show(progress, record)
    state.window = Window()


def _scheduled(session: Session) -> dict[str, float]:
    """Collect the numbers that optimizer, objective and methods change over the run."""
    parts, progress = session.parts, session.state.last_progress
    numbers = parts.optimizer.scheduled(session.state.rate_progress) | parts.objective.scheduled(progress)
    for method in parts.methods:
        numbers |= method.scheduled(progress)
    return numbers


def _mfu(session: Session) -> float | None:
    """Compute the model FLOP utilisation of the window by the formula of the receipt; None without a known peak."""
    window = session.state.window
    flops = window.flops + window.predicted * session.parts.flops.of_prediction
    return compute_mfu(flops, window.seconds, session.peak_flops)


def write_record(session: Session, kind: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Write a record to the metrics: its figures, and where the run stands.

    Updates whose figures have not come back are left out of the place, so that it fits the losses.

    Args:
        kind: of the record.
        figures: JSON values by name; they take precedence over the place.

    Returns:
        The record.
    """
    clock, state, parts = session.clock, session.state, session.parts
    positions = clock.positions - positions_in_flight(session)
    executed = parts.flops.executed(parts.work, state.predicted, positions)
    record = {
        "kind": kind,
        "step": clock.updates - len(session.in_flight),
        "time": time.time(),
        **figures,
        "progress": state.last_progress,
        "positions": positions,
        "flops": executed - sum(launched.flops for launched in session.in_flight),
        "charged_seconds": clock.charged(),
    }
    session.metrics.write(record)
    with clock.account("saving"), session.ranks.doing("saving"):
        session.metrics.track(record)
    return record


def begin_phase(session: Session) -> None:
    """End the window before a new phase of the objective, whose losses are not comparable with those before."""
    settle(session)
    log(session)
    state = session.state
    # Neither is comparable.
    state.faults.recent, state.noise_scale, state.spike_window = None, NoiseScale(), Window()
    write_record(session, "phase", {})


def record_fault(session: Session, event: str, figures: dict[str, Any]) -> None:
    """Write a record about a fault to the metrics."""
    write_record(session, "fault", {"event": event, **figures})


def record_resume(session: Session, lost_seconds: float) -> None:
    """Write to the metrics that another process continues the run, so that a reader can see where.

    Args:
        lost_seconds: charged for the time between the checkpoint and the crash of the process before.
    """
    figures = {"process": len(session.state.processes), "budget": session.clock.budget.words()}
    write_record(session, "resume", {**figures, "lost_seconds": lost_seconds})


def record_evaluation(session: Session) -> dict[str, Any]:
    """Evaluate on the held-out rows, off the clock, and write the figures to the metrics.

    Returns:
        The figures by name, as `cram.evaluation.scores.evaluate` gives them, with those of the halves, which are not
        in the metrics: a run is judged by its end.
    """
    settle(session)
    with session.clock.account("evaluation"):
        figures = evaluate_held_out(session)
    write_record(session, "held_out", {name: value for name, value in figures.items() if name not in HALVES})
    return figures


@on_all_ranks("evaluating")
def evaluate_held_out(session: RankSession) -> dict[str, Any]:
    """Compute the figures of the model on the held-out rows, of which each rank scores a share."""
    return session.parts.evaluate(session.parts.held_out, session.ranks)
