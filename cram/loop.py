"""The rhythm of training: take rows, hide tokens, accumulate, update, record, until the budget is spent.

The loop knows its parts only as protocols; `cram.build` chooses them.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from cram.checkpoint import Checkpoint, Checkpoints
from cram.clock import Clock
from cram.device import is_out_of_memory, synchronize
from cram.errors import CramError
from cram.record import Metrics


class Loader(Protocol):
    """Rows in training order; what it gives can be sliced by rows."""

    rows_total: int
    rows_taken: int

    @property
    def rows_left(self) -> int: ...
    def next(self, n: int) -> Any: ...
    def peek(self, n: int) -> Any: ...
    def state(self) -> dict[str, Any]: ...
    def resume(self, state: dict[str, Any]) -> None: ...


class Objective(Protocol):
    """Makes a batch of rows on the host, and a loss of a batch on the device."""

    def prepare(self, rows: Any, progress: float) -> Any: ...
    def loss(self, model: Any, batch: Any) -> torch.Tensor: ...


class Optimizer(Protocol):
    """An update rule whose learning rate and state are set from outside."""

    def step(self, multiplier: float) -> None: ...
    def state_tensors(self) -> dict[str, torch.Tensor]: ...
    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None: ...
    def lr(self) -> float: ...


@dataclass
class Window:
    """What has been summed since the last line of metrics; part of a checkpoint."""

    nats: float = 0.0
    predicted: int = 0
    positions: int = 0
    updates: int = 0
    seconds: float = 0.0

    def add(self, nats: float, predicted: int, positions: int, seconds: float) -> None:
        """Count one update."""
        self.nats += nats
        self.predicted += predicted
        self.positions += positions
        self.updates += 1
        self.seconds += seconds


@dataclass
class Session:
    """One run in flight: its parts, and the little state that is the loop's own."""

    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    loader: Loader
    clock: Clock
    metrics: Metrics
    checkpoints: Checkpoints
    schedule: Callable[[float], float]
    batch_tokens: Callable[[float], float]
    evaluate: Callable[[], dict[str, float]]
    show: Callable[[float, dict[str, float]], None]
    device: torch.device
    precision: torch.dtype
    seq_len: int
    micro_rows: int
    clip: float | None
    log_interval: int
    checkpoint_seconds: float
    evaluation_interval: float | None
    stop_asked: Callable[[], bool]
    threads: int
    seeded_weights: str
    initial_weights: str
    window: Window = field(default_factory=Window)
    predicted: int = 0
    last_progress: float = 0.0
    out_of_memory: int = 0
    longest_update: float = 0.0
    largest_update: int = 0
    saved: int | None = None  # update of the checkpoint last written or read

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs beside tensors, as JSON."""
        return {
            "clock": self.clock.state(),
            "loader": self.loader.state(),
            "window": vars(self.window),
            "metrics_lines": self.metrics.lines,
            **{name: getattr(self, name) for name in _CARRIED},
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; `metrics` must have been cut back to it already."""
        state = checkpoint.state
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_tensors(checkpoint.optimizer)
        self.clock.resume(state["clock"])
        self.loader.resume(state["loader"])
        self.window = Window(**state["window"])
        for name in _CARRIED:
            setattr(self, name, state[name])
        self.saved = checkpoint.step
        torch.set_num_threads(self.threads)


_CARRIED = (
    "micro_rows", "threads", "predicted", "last_progress", "out_of_memory", "longest_update",
    "largest_update", "initial_weights",
)  # fmt: skip


def train(session: Session) -> bool:
    """Train until the budget, or the data, is spent. False when interrupted; the state is saved either way."""
    saved_at = time.monotonic()
    # All that the loop does is charged to the updates, but for what it books elsewhere.
    with session.clock.account("updates"):
        while session.last_progress < 1.0 and session.loader.rows_left >= session.micro_rows:
            before = session.last_progress
            update(session)
            if session.clock.updates % session.log_interval == 0 or session.last_progress == 1.0:
                log(session)
            if _crosses(session.evaluation_interval, before, session.last_progress):
                record_evaluation(session)
            if session.stop_asked():
                save(session)
                return False
            if time.monotonic() - saved_at >= session.checkpoint_seconds:
                save(session)
                saved_at = time.monotonic()
        if session.clock.updates != session.saved:
            save(session)
    return True


def update(session: Session) -> None:
    """One update: as many rows as the ramp asks for, at the progress its end is predicted to have."""
    began = time.monotonic()
    rows = update_rows(session, session.last_progress)
    progress = predicted_progress(session, rows)
    with session.clock.account("waiting"):
        taken = session.loader.next(rows)
    predicted, nats = accumulate(session, taken, progress)
    if session.clip is not None:
        nn.utils.clip_grad_norm_(session.model.parameters(), session.clip)
    session.optimizer.step(session.schedule(progress))
    session.model.zero_grad(set_to_none=True)
    total = float(nats)  # waits for the device, so that the clock sees the update's true end
    seconds = time.monotonic() - began
    session.clock.finish_update(rows * session.seq_len, seconds)
    session.last_progress = progress
    session.predicted += predicted
    session.longest_update = max(session.longest_update, seconds)
    session.largest_update = max(session.largest_update, rows * session.seq_len)
    session.window.add(total, predicted, rows * session.seq_len, seconds)


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
    return max(session.clock.progress_after(rows * session.seq_len), data_share)


def accumulate(session: Session, rows: Any, progress: float) -> tuple[int, torch.Tensor]:
    """Leave in the gradients the sum over predicted tokens divided by their count over all micro-batches.

    Out of memory halves the micro-batch and starts this update again.
    Returns: predicted tokens, and the sum of their nats as a tensor on the device.
    """
    while True:
        try:
            return _accumulate(session, rows, progress)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            halve_micro_batch(session)


def _accumulate(session: Session, rows: Any, progress: float) -> tuple[int, torch.Tensor]:
    micro = session.micro_rows
    count = len(rows.tokens)
    batches = [session.objective.prepare(rows[begin : begin + micro], progress) for begin in range(0, count, micro)]
    predicted = sum(batch.predicted for batch in batches)
    nats = torch.zeros((), device=session.device)
    for batch in batches:
        nats += backward(session, batch, 1.0 / max(predicted, 1))
    return predicted, nats


def backward(session: Session, batch: Any, scale: float) -> torch.Tensor:
    """Forward and backward of one micro-batch; returns its summed nats, detached."""
    on_device = batch.to(session.device)
    with torch.autocast(session.device.type, torch.bfloat16, enabled=session.precision == torch.bfloat16):
        loss = session.objective.loss(session.model, on_device)
    (loss * scale).backward()
    return loss.detach()


def halve_micro_batch(session: Session) -> None:
    """Answer to running out of memory. Errors: CramError when one row does not fit."""
    session.model.zero_grad(set_to_none=True)
    if session.micro_rows == 1:
        raise CramError(
            f"one row of {session.seq_len} tokens does not fit in the memory of this device. "
            "Use a smaller model (model.layers, model.width) or data.seq_len."
        )
    session.micro_rows = session.micro_rows // 2
    session.out_of_memory += 1
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
    print(f"warning: out of memory; the micro-batch is now {session.micro_rows} rows.", flush=True)


def log(session: Session) -> None:
    """Write the window's figures to the metrics and show them; begin a new window."""
    window, clock = session.window, session.clock
    figures = {
        "loss": window.nats / max(window.predicted, 1),
        "lr": session.optimizer.lr(),
        "tokens_per_second": window.positions / max(window.seconds, 1e-9),
        "batch_tokens": window.positions / max(window.updates, 1),
        "progress": session.last_progress,
        "positions": clock.positions,
        "charged_seconds": clock.charged(),
    }
    session.metrics.write({"kind": "train", "step": clock.updates, "time": time.time(), **figures})
    session.show(session.last_progress, figures)
    session.window = Window()


def record_evaluation(session: Session) -> None:
    """Evaluate on the held-out rows, off the clock, and write the figures to the metrics."""
    with session.clock.account("evaluation"):
        figures = session.evaluate()
    record = {"kind": "held_out", "step": session.clock.updates, "time": time.time(), **figures}
    session.metrics.write({**record, "charged_seconds": session.clock.charged()})


def save(session: Session) -> None:
    """Write a checkpoint, off the clock."""
    with session.clock.account("saving"):
        synchronize(session.device)
        session.metrics.flush()
        model = {name: tensor.cpu() for name, tensor in session.model.state_dict().items()}
        optimizer = {name: tensor.cpu() for name, tensor in session.optimizer.state_tensors().items()}
        session.checkpoints.save(session.clock.updates, model, optimizer, session.state())
    session.saved = session.clock.updates


def _crosses(interval: float | None, before: float, after: float) -> bool:
    """Whether a multiple of the interval lies between two progress values; the end is evaluated anyway."""
    return interval is not None and after < 1.0 and math.floor(after / interval) > math.floor(before / interval)
