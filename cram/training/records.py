"""What updates came to: their figures are counted when the device gives them, and written to the metrics."""

import time
from collections.abc import Hashable
from dataclasses import asdict
from typing import Any

from cram.training.compilation import compiled_graphs
from cram.training.noise_scale import NoiseScale
from cram.training.session import Session, Window


def settle(session: Session, keep: int = 0) -> None:
    """Wait for the updates in flight except the newest `keep`, and count their tokens, nats and seconds."""
    state = session.state
    while len(session.in_flight) > keep:
        launched = session.in_flight.pop(0)
        nats, finite, norms = launched.wait()  # first, so that the clock sees the true end of the update
        seconds = session.clock.end_update(launched.positions, known_reason(session))
        if session.thread_watch:
            session.thread_watch.count(_kind_of_update(session, launched.positions), launched.positions, seconds)
        state.faults.count(finite)
        if launched.probe and finite:
            state.noise_scale.add(launched.probe, *norms)
        predicted = launched.predicted if finite else 0
        state.predicted += predicted
        state.window.add(nats if finite else 0.0, predicted, launched.positions, seconds)


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

    An update in flight belongs to the next window, so that nothing waits for it. The loss of a window without a finite
    update is None.
    """
    state, window, clock = session.state, session.state.window, session.clock
    if not window.updates:
        return
    step = clock.updates - len(session.in_flight)
    loss = window.nats / window.predicted if window.predicted else None
    spike = None if loss is None else state.faults.record_loss(step, loss, session.config.faults)
    if spike:
        record_fault(session, "spike", asdict(spike))
    figures = {
        "loss": loss,
        "lr": session.parts.optimizer.lr(),
        "tokens_per_second": window.positions / max(window.seconds, 1e-9),
        "batch_tokens": window.positions / max(window.updates, 1),
        "noise_scale": state.noise_scale.tokens(),
        "progress": state.last_progress,
        "positions": clock.positions - positions_in_flight(session),
        "charged_seconds": clock.charged(),
    }
    session.metrics.write({"kind": "train", "step": step, "time": time.time(), **figures})
    session.show(state.last_progress, figures)
    state.window = Window()


def begin_phase(session: Session) -> None:
    """End the window before a new phase of the objective, whose losses are not comparable with those before."""
    settle(session)
    log(session)
    state, clock = session.state, session.clock
    state.faults.recent, state.noise_scale = None, NoiseScale()  # neither is comparable
    record = {"kind": "phase", "step": clock.updates, "time": time.time(), "progress": state.last_progress}
    session.metrics.write({**record, "charged_seconds": clock.charged()})


def record_fault(session: Session, event: str, figures: dict[str, Any]) -> None:
    """Write a line about a fault to the metrics."""
    record = {"kind": "fault", "event": event, "step": session.clock.updates, "time": time.time()}
    session.metrics.write({**record, **figures, "charged_seconds": session.clock.charged()})


def record_evaluation(session: Session) -> dict[str, Any]:
    """Evaluate on the held-out rows, off the clock, and write the figures to the metrics.

    Returns:
        The figures by name, as `cram.evaluation.scores.evaluate` gives them.
    """
    settle(session)
    with session.clock.account("evaluation"):
        figures = session.parts.evaluate(session.parts.held_out)
    record = {"kind": "held_out", "step": session.clock.updates, "time": time.time(), **figures}
    session.metrics.write({**record, "charged_seconds": session.clock.charged()})
    return figures
