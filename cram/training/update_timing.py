"""How long an update takes with given parts, outside of any run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cram.distributed.ranks import ALONE, Ranks
from cram.machine.device import synchronize
from cram.training.gradients import accumulate, clip
from cram.training.session import LoopConfig, RunState, UpdateParts


@dataclass(frozen=True)
class TrialSession:
    """An `UpdateSession` that records nothing: parts whose updates are timed and whose weights are then dropped."""

    parts: UpdateParts
    config: LoopConfig
    state: RunState
    ranks: Ranks = ALONE


def time_update(
    trial: TrialSession,
    rows: Any,
    progress: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure the seconds of an update: batches, gradients, clipping and the step of the optimizer.

    One update of a single micro-batch comes first and is not timed, because it makes buffers and the state of the
    optimizer. Then updates are timed, one at least, until they have taken `seconds`; the median counts.

    Args:
        rows: those of an update, which can be sliced.
        progress: the value of progress at which batches are made.

    Raises:
        CramError: one row does not fit into memory.
    """
    _update(trial, rows[: trial.state.micro_rows], progress)
    times: list[float] = []
    while sum(times) < seconds or not times:
        began = clock()
        _update(trial, rows, progress)
        times.append(clock() - began)
    return statistics.median_low(times)


def _update(trial: TrialSession, rows: Any, progress: float) -> None:
    """Do with rows what `cram.training.loop.update` does with them, and wait for the device."""
    parts = trial.parts
    _, nats = accumulate(trial, rows, progress)
    finite = clip(trial, nats).finite
    parts.optimizer.step(1.0, progress, finite)
    if parts.loss_scale:
        parts.loss_scale.update()
    parts.model.zero_grad(set_to_none=True)
    synchronize(parts.device)
