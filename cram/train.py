"""`python -m cram.train recipe=R`: text in, a trained and exported language model out, inside a budget."""

from typing import TYPE_CHECKING

from cram.command import INTERRUPTED, StopSignals, dry_run_words, run_door
from cram.config.config import Config
from cram.config.recipe import read_config

if TYPE_CHECKING:
    from cram.build import Parts
    from cram.clock import Clock
    from cram.data.shards.shards import ShardSet
    from cram.run.checkpoint import Checkpoint
    from cram.run.folder import RunFolder
    from cram.training.extension import Plan
    from cram.training.session import Session

ABOUT = """Train a language model from scratch inside a fixed budget.

    python -m cram.train recipe=bert_demo
    python -m cram.train recipe=bert_24h data.source='texts/*.jsonl.zst' run=runs/mine
    python -m cram.train recipe=gpt_demo

The same command on an unfinished run resumes it. With --print it says what would run, and ends."""


def main(words: list[str]) -> int:
    """Prepare if needed, train until the budget is spent, evaluate, write the receipt, export."""
    config = read_config(dry_run_words(words))
    if config.dry_run:
        from cram.planner.dry_run import print_dry_run

        return print_dry_run(config)
    from cram.build import build_parts, check
    from cram.clock import Budget, Clock, boot_clock
    from cram.data.preparation.prepare import prepare_shards
    from cram.data.preparation.vocabulary import TokenizerSource
    from cram.data.shards.shards import ShardSet
    from cram.hub.initial import check_tokenizer, read_initial
    from cram.reporting.summary import print_summary
    from cram.run.checkpoint import Checkpoints
    from cram.run.files import read_receipt
    from cram.run.folder import RunFolder
    from cram.training.extension import plan_extension
    from cram.training.finish import finish_run

    check(config)
    folder = RunFolder(config)
    plan = plan_extension(folder, config)
    if folder.finished and not plan:
        print(f"{folder.path} is finished; nothing to do.")
        return print_summary(folder.path, read_receipt(folder.path))
    initial = read_initial(config) if config.init and not Checkpoints(folder.path).steps() else None
    clock = Clock(Budget.parse(config.budget), boot=boot_clock())
    with clock.account("preparation"):
        if folder.shards:
            shards = ShardSet.open(folder.shards)
        else:
            tokenizer = TokenizerSource(config.tokenizer, config.wordpiece, config.special)
            shards = prepare_shards(config.data, tokenizer)
        shards.verify()
        parts = build_parts(config, shards)
        if initial:
            check_tokenizer(config, shards.tokenizer_path)
            parts.model.load_state_dict(initial)
    session, finished = _train(config, folder, clock, shards, parts, plan)
    if not finished:
        print(
            f"interrupted at {session.last_progress:.1%} of the budget; the state is saved. The same command resumes."
        )
        return INTERRUPTED
    return print_summary(folder.path, finish_run(config, folder.path, session, parts, shards))


def _train(
    config: Config, folder: "RunFolder", clock: "Clock", shards: "ShardSet", parts: "Parts", plan: "Plan | None"
) -> tuple["Session", bool]:
    """Start, resume or extend, and train. Returns the session and whether the budget was spent."""
    from cram.build import build_session
    from cram.machine.device import device_notes, environment
    from cram.optim.schedule import decay_begins
    from cram.run.heartbeat import Heartbeat, last_beat
    from cram.run.metrics import Metrics
    from cram.terminal.progress import BudgetBar
    from cram.training.compilation import compile_session
    from cram.training.loop import save, train
    from cram.training.probe import check_one_batch

    for note in device_notes(config.device, parts.device):
        print(note)
    checkpoints = folder.checkpoints(decay_begins(config.schedule))
    checkpoint = plan.checkpoint(checkpoints) if plan else checkpoints.newest()
    check_one_batch(parts.loader, config)
    if checkpoint:
        parts.loader.resume(checkpoint.state["loader"])  # so that data that does not fit is refused here
    tokenizer = shards.tokenizer_path.read_bytes()
    checkpoints.identity = folder.begin(shards.folder, shards.hash, tokenizer, environment(parts.device))
    if plan and (kept := folder.set_aside(plan.old)):
        print(f"the results of {plan.old.words()} are kept in {kept}")
    metrics = Metrics(folder.path, checkpoint.state["metrics"] if checkpoint else None)
    with StopSignals() as stop, BudgetBar(folder.path.name, config.budget) as bar:
        session = build_session(config, parts, clock, metrics, checkpoints, bar.show, lambda: stop.asked)
        if checkpoint:
            session.resume(checkpoint)
            print(f"resuming {folder.path} at update {checkpoint.step}, {session.last_progress:.1%} of the budget")
        if plan and checkpoint:
            plan.book(session, config, checkpoint)
        if not (plan and plan.discarded_updates):  # of those the plan knows the time
            clock.charge_crash(last_beat(folder.path))
        with Heartbeat(folder.path, clock):
            if plan and checkpoint:
                save(session)  # in the place of the one it goes on from; later ones go
            _ready(config, session, checkpoint)
            session.compiled = compile_session(session, config.compile)
            if not checkpoint:
                _start(config, session, shards)
            elif plan:
                _data_report(config, session, shards)
            return session, train(session)


def _ready(config: Config, session: "Session", checkpoint: "Checkpoint | None") -> None:
    """Fit the session to this machine, and record the machine."""
    from cram.machine.device import environment, set_threads
    from cram.run.history import bytes_changed, process
    from cram.training.probe import find_micro_rows, measure_pace

    if not checkpoint:
        find_micro_rows(session, config.batch.micro_rows)
    elif config.threads is None:
        session.threads = set_threads(session.processes[-1]["threads"])
    precision = str(session.precision).removeprefix("torch.")
    now = process(config, session.clock.updates, session.threads, precision, environment(session.device))
    changes = bytes_changed([*session.processes[-1:], now])
    session.processes.append(now)
    if changes:
        print(f"{'; '.join(changes)}: a repeated run would no longer give the same bytes", flush=True)
        session.clock.forget_pace()
        if session.clock.budget.clock == "wall":
            measure_pace(session)


def _start(config: Config, session: "Session", shards: "ShardSet") -> None:
    """Measure the pace, and say whether the data will last."""
    from cram.training.probe import measure_pace

    if session.clock.budget.clock == "wall":
        measure_pace(session)
    _data_report(config, session, shards)


def _data_report(config: Config, session: "Session", shards: "ShardSet") -> None:
    from cram.training.probe import data_report, rows_needed

    print(data_report(session, rows_needed(session), shards.tokens * config.data.epochs), flush=True)


if __name__ == "__main__":
    run_door(main, Config, ABOUT)
