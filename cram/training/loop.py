"""The rhythm of training: take rows, make batches, accumulate gradients, update, record, until the budget is spent.

The loop knows its parts only by their contracts (`cram.training.protocols`, `cram.methods.method`). A method of the
literature needs no change here: `update` calls its points at fixed lines.
"""

import math
import time
from dataclasses import asdict

from cram.distributed.orders import on_all_ranks
from cram.training.curvature import curvature_is_due, estimate_curvature
from cram.training.gradients import accumulate, begin_probe, choice_seed, clip, seed_dropout
from cram.training.launched import Launched
from cram.training.rank_report import gather_facts, name_devices
from cram.training.records import (
    begin_phase,
    log,
    positions_in_flight,
    record_evaluation,
    record_fault,
    settle,
    slow_so_far,
)
from cram.training.reference import begin_methods
from cram.training.restoring import load_tensors, weights_hash
from cram.training.row_source import take_rows
from cram.training.saving import save, share_is_due
from cram.training.session import RankSession, Session
from cram.training.threads import adapt_threads

# Measurements of the gradient noise scale before the size of an update follows it. One alone is worth nothing.
NOISE_MEASUREMENTS = 8


def train(session: Session) -> bool:
    """Train until the budget or the data is spent.

    Returns:
        Whether it was; False after a request to stop. The state is saved either way.
    """
    parts, state, clock, config = session.parts, session.state, session.clock, session.config
    for name in name_devices(gather_facts(session)):
        if name not in state.devices:
            state.devices.append(name)
    if session.saved is None:
        with clock.account("saving"):
            state.initial_weights = weights_hash(parts.model)
        save(session)  # a rollback needs at least one checkpoint
    session.show_page()
    if not begin_methods(session):
        return False
    saved_at = time.monotonic()
    # All time of the loop is charged to the updates, except what it books to other accounts.
    session.ranks.enter("updating")
    with clock.account("updates"):
        clock.begin_updates()
        session.slow_before = slow_so_far(session)
        while state.last_progress < 1.0 and parts.loader.rows_left >= session.step_rows:
            before = state.last_progress
            update(session)
            if state.faults.in_a_row >= config.faults.patience and state.last_progress < 1.0:
                roll_back(session)
            if clock.updates % session.log_interval == 0 or state.last_progress == 1.0:
                log(session)
            if evaluated := _crosses(config.evaluation_interval, before, state.last_progress):
                record_evaluation(session)
            if session.stop_requested():
                save(session)
                return False
            # Weights in the middle of a row of faults may be their cause, so they are not worth a checkpoint.
            due = time.monotonic() - saved_at >= config.checkpoint_seconds or share_is_due(session)
            if due and not state.faults.in_a_row:
                save(session)
                saved_at = time.monotonic()
            if evaluated or due:
                session.show_page()
            adapt_threads(session)
        if clock.updates != session.saved:
            save(session)
    with clock.account("methods"):
        finish_methods(session)
    return True


@on_all_ranks("updating")
def finish_methods(session: RankSession) -> None:
    """Let the methods turn the weights at the end of the budget into the result of the run."""
    session.parts.methods.finish(session.parts.model)


def update(session: Session) -> None:
    """Do one update: as many rows as the ramp asks for, at the progress that its end is predicted to have.

    Rates are read where the schedule says, usually in the middle of the update: at its end, those of the last one would
    be zero. The end of the update before is where this one begins, and is in every checkpoint.

    A GPU is given the next update before the figures of this one are read, so that it never waits for the host.
    """
    parts, state, clock = session.parts, session.state, session.clock
    rows = update_rows(session, state.last_progress)
    progress = predicted_progress(session, rows)
    keep_before_decay(session, progress)
    if any(state.last_progress < phase <= progress for phase in parts.objective.phases):
        begin_phase(session)
    at = state.rate_progress = parts.rate_progress(state.last_progress, progress)
    launched = compute_update(session, rows, progress, at, *parts.multipliers(at, state.faults.lr_factor))
    session.in_flight.append(launched)
    clock.count_update(launched.positions)
    state.last_progress = progress
    settle(session, keep=0 if parts.device.type == "cpu" or progress == 1.0 else 1)
    follow_noise_scale(session)


@on_all_ranks("updating")
def compute_update(
    session: RankSession, rows: int, progress: float, at: float, multiplier: float, others: float | None
) -> Launched:
    """Take the rows of an update, compute its gradients, and update the weights: each rank does its share.

    Args:
        rows: rows of the model, of all ranks together.
        progress: at the predicted end of the update.
        at: progress at which the rates are read.
        multiplier: of the learning rates.
        others: of the learning rates of all groups but `matrices`; None for no difference.
    """
    parts, clock = session.parts, session.clock
    seed_dropout(session)
    with clock.account("methods"):
        taken = take_rows(session, rows, progress)
        depth = parts.model.depth
        parts.methods.before_update(parts.model, parts.optimizer, progress)
        if parts.loss_scale and parts.model.depth != depth:
            parts.loss_scale.watch(parts.optimizer.owned(parts.model))
        if curvature_is_due(session):
            estimate_curvature(session, taken.rows, progress)
    probe, flops_before = begin_probe(session, taken.total), parts.flops.of_blocks(parts.work.main)
    parts.objective.begin_update(clock.updates)
    predicted, nats = accumulate(session, taken.rows, progress, probe, choice_seed(session, "depth"))
    parts.objective.end_update(clock.updates)
    norm, finite, nats = clip(session, nats, probe)
    parts.optimizer.step(multiplier, at, finite, others)
    parts.work.add_step(parts.optimizer.kind, parts.model.depth)
    if parts.loss_scale:
        parts.loss_scale.update()
    parts.model.zero_grad(set_to_none=True)
    with clock.account("methods"):
        parts.methods.after_step(parts.model, progress)
    flops = parts.flops.of_blocks(parts.work.main) - flops_before
    return Launched(taken.total * parts.seq_len, predicted, nats, norm, finite, flops, probe)


def keep_before_decay(session: Session, progress: float) -> None:
    """Save right before the learning rate begins to fall, because a longer budget goes on from there."""
    crosses = session.state.last_progress <= session.checkpoints.decay < progress
    if crosses and session.saved != session.clock.updates and not session.state.faults.in_a_row:
        save(session)


def roll_back(session: Session) -> None:
    """Return to the weights of the latest checkpoint with a lower learning rate. Clock and data go on.

    Raises:
        CramError: where the run has had as many rollbacks as the config allows.
    """
    settle(session)
    if session.state.faults.in_a_row < session.config.faults.patience:
        return  # the update in flight was a good one
    checkpoint = session.checkpoints.read_newest()
    assert checkpoint is not None
    rollback = session.state.faults.roll_back(session.clock.updates, checkpoint.step, session.config.faults)
    load_tensors(session, checkpoint=checkpoint)
    session.clock.begin_updates()
    record_fault(session, "rollback", asdict(rollback))
    print(
        f"warning: the loss was not finite {session.config.faults.patience} updates in a row; back to the weights of "
        f"update {checkpoint.step}, with {rollback.lr_factor:g} times the learning rate.",
        flush=True,
    )


def follow_noise_scale(session: Session) -> None:
    """Let the size of the next updates grow to its share of the gradient noise scale, once that is known well enough.

    Source: arXiv:1812.06162 section 2.2, where the noise scale is the size beyond which more tokens gain little,
    changed: the size follows the scale as it grows during the run, and never falls, because single estimates scatter.
    """
    share, noise = session.config.noise_share, session.state.noise_scale
    scale = noise.tokens() if share and noise.measured >= NOISE_MEASUREMENTS else None
    if share and scale:
        session.state.noise_tokens = max(session.state.noise_tokens, share * scale)


def requested_rows(session: Session, progress: float) -> int:
    """Compute the rows of the model in an update at some progress: whole micro-batches, nearest to the ramp's size."""
    parts, micro = session.parts, session.step_rows
    tokens = parts.batch_tokens(progress)
    if session.config.noise_share:
        tokens = min(max(session.state.noise_tokens, parts.batch_tokens(0.0)), parts.batch_tokens(1.0))
    rows = max(1, round(tokens / (micro * parts.seq_len))) * micro
    return max(1, parts.methods.rows(rows, progress) // micro) * micro


def update_rows(session: Session, progress: float) -> int:
    """Compute the rows of the next update: as many as requested, at most the whole micro-batches that are left."""
    micro, left = session.step_rows, session.parts.loader.rows_left / _rows_read(session, progress)
    return max(micro, min(requested_rows(session, progress), int(left) - int(left) % micro))


def _rows_read(session: Session, progress: float) -> float:
    """Compute how many rows are read for each row of the model at some progress."""
    return session.parts.methods.reads_ahead * session.parts.objective.rows_joined(progress)


def predicted_progress(session: Session, rows: int) -> float:
    """Predict progress at the end of an update of `rows`: the larger of the shares of budget and data that are spent.

    The last update, of the budget or of the data, gets exactly 1.0.
    """
    reads = _rows_read(session, session.state.last_progress)
    read = rows * reads
    if session.parts.loader.rows_left - read < session.step_rows * reads:
        return 1.0
    data_share = (session.parts.loader.rows_taken + read) / session.parts.loader.rows_total
    progress = session.clock.progress_after(rows * session.parts.seq_len, positions_in_flight(session))
    # An update that leaves a phase of superposition reads fewer rows than was predicted.
    return max(progress, data_share, session.state.last_progress)


def _crosses(interval: float | None, before: float, after: float) -> bool:
    """Whether a multiple of the interval lies between two values of progress. The end is evaluated anyway."""
    return interval is not None and after < 1.0 and math.floor(after / interval) > math.floor(before / interval)
