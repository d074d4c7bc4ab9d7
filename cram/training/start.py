"""A run on rank 0, from its parts to the end of its budget: start, resume or extend, then train.

The steps of `train_run` need each other in this order:

1. The data must hold one update, and the place in it must exist, before anything is written.
2. The folder is begun or proved to be this run's. Results of a shorter budget are set aside.
3. Clock, loader and weights are put back to the checkpoint, and the time that a crash has cost since then is booked:
   the heartbeat that dates the crash must be read before a new one begins.
4. The heartbeat begins. From here on every second is dated.
5. The micro-batch is found: compilation and pace depend on it. Then the threads are measured, which takes passes.
6. The machine of this process is recorded. Another machine forgets the pace that was measured.
7. The model is compiled, and compared with eager code. Its time is charged.
8. The pace is measured on the compiled model, so that the schedule knows how many updates the budget has. Where nothing
   is compiled, the measurement of the threads has told it.
9. The loop trains.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cram.budget import parse_duration
from cram.clock import Clock
from cram.command import StopSignals
from cram.config.config import Config
from cram.distributed.ranks import Ranks
from cram.machine.device import device_notes, environment, peak_flops, set_threads
from cram.run.checkpoint import Checkpoint
from cram.run.folder import RunFolder
from cram.run.heartbeat import Heartbeat, read_heartbeat
from cram.run.history import describe_changes, newest_threads, record_process
from cram.run.metrics import Metrics
from cram.terminal.progress import BudgetBar
from cram.training.compilation import compile_session
from cram.training.extension import ExtensionPlan
from cram.training.loop import train
from cram.training.passes import measure_lone_pace
from cram.training.probe import (
    check_one_batch,
    choose_log_interval,
    data_report,
    find_micro_rows,
    measure_pace,
    rows_needed,
)
from cram.training.protocols import ShardsProtocol
from cram.training.records import record_resume
from cram.training.restoring import resume, share_weights
from cram.training.saving import save
from cram.training.session import LoopConfig, Parts, Session
from cram.training.threads import fit_threads, threads_are_measured


@dataclass(frozen=True)
class Trained:
    """A run after its training: the session, and whether its budget was spent. If not, it was asked to stop."""

    session: Session
    finished: bool


def loop_config(config: Config) -> LoopConfig:
    """Take the keys that the loop reads out of a config."""
    return LoopConfig(
        clip=config.optimizer.clip,
        noise_share=config.batch.noise_share,
        faults=config.faults,
        checkpoint_seconds=parse_duration(config.checkpoint.interval, "checkpoint.interval"),
        evaluation_interval=config.evaluation.interval,
        seed=config.seed,
        dropout=config.model.dropout > 0,
        checkpoint_shares=tuple(config.checkpoint.shares),
    )


def train_run(
    config: Config,
    folder: RunFolder,
    clock: Clock,
    shards: ShardsProtocol,
    parts: Parts,
    extension: ExtensionPlan | None,
    threads: int,
    show_page: Callable[[], None],
    ranks: Ranks,
) -> Trained:
    """Start, resume or extend a run, and train it until its budget is spent or it is asked to stop.

    Args:
        clock: with the budget of the config; preparation is booked already.
        extension: how a run that had a shorter budget goes on, or None.
        threads: CPU threads that this process uses.
        show_page: writes the page of the run, if it is to be written while the run goes on.
        ranks: that share the updates; this is rank 0 of them.

    Raises:
        CramError: where the data does not suffice for one update, or the folder, a checkpoint or the metrics are not
            this run's.
    """
    checkpoints = folder.checkpoints(parts.decay_begins)
    checkpoint = extension.checkpoint(checkpoints) if extension else checkpoints.read_newest()
    check_one_batch(parts.loader, config)
    if checkpoint:
        parts.loader.resume(checkpoint.state["loader"])
    tokenizer = shards.tokenizer_path.read_bytes()
    checkpoints.identity = folder.begin(shards.folder, shards.hash, tokenizer, environment(parts.device))
    if extension:
        _set_results_aside(folder, extension)
    with StopSignals() as stop, BudgetBar(folder.path.name, config.budget) as bar:
        session = Session(
            parts=parts,
            config=loop_config(config),
            clock=clock,
            metrics=_open_metrics(config, folder, checkpoint, extension),
            checkpoints=checkpoints,
            show=bar.show,
            stop_requested=lambda: stop.asked,
            threads=threads,
            show_page=show_page,
            peak_flops=_peak(parts.device, ranks),
            ranks=ranks,
        )
        _set_out(session, folder, checkpoint, extension)
        lost = _charge_crash(clock, folder, extension)
        with Heartbeat(folder.path, clock):
            if extension and checkpoint:
                save(session)  # replaces the checkpoint that the extension goes on from; later ones are removed
            _fit_to_machine(config, session, resumed=checkpoint is not None)
            _compile(session, config)
            _measure_speed(session, resumed=checkpoint is not None)
            _begin_records(session, config, lost)
            if not checkpoint or extension:
                _report_data(session, config, shards)
            return Trained(session, train(session))


def _set_results_aside(folder: RunFolder, extension: ExtensionPlan) -> None:
    """Keep the results of the shorter budget in a subfolder."""
    if results := folder.set_aside(extension.old):
        print(f"the results of {extension.old.words()} are kept in {results}")


def _peak(device: torch.device, ranks: Ranks) -> float | None:
    """Add up the published FLOP/s of the devices of all ranks, which are alike; None where it is not known."""
    peak = peak_flops(device)
    return None if peak is None else peak * ranks.size


def _open_metrics(
    config: Config, folder: RunFolder, checkpoint: Checkpoint | None, extension: ExtensionPlan | None
) -> Metrics:
    """Open the metrics, cut back to the checkpoint."""
    saved = checkpoint.state["metrics"] if checkpoint else None
    return Metrics(folder.path, saved, config.track, restart=bool(extension and extension.discarded_updates))


def _charge_crash(clock: Clock, folder: RunFolder, extension: ExtensionPlan | None) -> float:
    """Charge the time between the checkpoint and the crash of the process before, and return its seconds."""
    before = clock.booked["crash"]
    if not (extension and extension.discarded_updates):  # the extension knows the time of discarded updates
        clock.charge_crash(read_heartbeat(folder.path))
    return clock.booked["crash"] - before


def _begin_records(session: Session, config: Config, lost_seconds: float) -> None:
    """Choose how often the training is recorded, and record that the run is continued, if it is."""
    session.log_interval = config.log_interval or choose_log_interval(session)
    if session.saved is not None:
        record_resume(session, lost_seconds)


def _report_data(session: Session, config: Config, shards: ShardsProtocol) -> None:
    """Print how much data there is, and how much the budget needs."""
    tokens = (config.data.subset_tokens or shards.tokens) * config.data.epochs
    print(data_report(session, rows_needed(session), tokens), flush=True)


def _set_out(
    session: Session, folder: RunFolder, checkpoint: Checkpoint | None, extension: ExtensionPlan | None
) -> None:
    """Give all ranks the first weights, or put the session back to a checkpoint and book a longer budget."""
    if checkpoint is None:
        share_weights(session)
        return
    resume(session, checkpoint)
    progress = session.state.last_progress
    print(f"resuming {folder.path} at update {checkpoint.step}, {progress:.1%} of the budget")
    if extension:
        extension.book(session, checkpoint)


def _fit_to_machine(config: Config, session: Session, resumed: bool) -> None:
    """Find the micro-batch and the threads for this machine, and record the machine in the state of the run."""
    parts, state, clock = session.parts, session.state, session.clock
    for note in device_notes(config.device, parts.device, session.ranks.size):
        print(note)
    before = state.processes[-1:]
    if not resumed:
        fixed = clock.reference.table.micro_rows if clock.reference else None
        find_micro_rows(session, fixed or config.batch.micro_rows)
    else:
        before = [{**before[0], "threads": newest_threads(before, state.thread_choices)}]
        if config.threads is None:
            session.threads = set_threads(before[0]["threads"])
    if config.threads is None and threads_are_measured(session):
        fit_threads(session)
    precision = str(parts.precision).removeprefix("torch.")
    this_process = record_process(
        config, clock.updates, session.threads, precision, environment(parts.device), session.ranks.size
    )
    changes = describe_changes([*before, this_process])
    state.processes.append(this_process)
    if changes:
        print(f"{'; '.join(changes)}: a repeated run would no longer give the same bytes", flush=True)
        clock.forget_pace()
        _measure_pace(session)


def _compile(session: Session, config: Config) -> None:
    """Compile the model. From then on the threads are fixed: another number would compile everything anew."""
    session.state.compiled = compile_session(session, config.compile)
    if session.state.compiled["kind"] != "eager":
        session.thread_watch = None


def _measure_speed(session: Session, resumed: bool) -> None:
    """Measure the pace, unless it is known, and what the ranks lose by each other."""
    if not resumed and session.thread_watch is None:  # else the measurement of the threads has told it
        _measure_pace(session)
    measure_lone_pace(session)


def _measure_pace(session: Session) -> None:
    """Measure the seconds of a position where the budget is one of time; read them from the table of reference time."""
    clock = session.clock
    if clock.budget.clock == "wall":
        measure_pace(session)
    if clock.reference:
        clock.learn_reference_pace(clock.reference.table.pace(session.parts.model.depth))
