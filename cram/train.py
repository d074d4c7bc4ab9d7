"""`python -m cram.train recipe=R`: text in, a trained and exported language model out, inside a budget."""

from typing import TYPE_CHECKING

from cram.command import INTERRUPTED, StopSignals, run_door
from cram.config import Config
from cram.recipe import read_config

if TYPE_CHECKING:
    from cram.build import Parts
    from cram.clock import Clock
    from cram.data.shards import ShardSet
    from cram.run_folder import RunFolder
    from cram.session import Session

ABOUT = """Train a language model from scratch inside a fixed budget.

    python -m cram.train recipe=bert_demo
    python -m cram.train recipe=bert_24h data.source='texts/*.jsonl.zst' run=runs/mine
    python -m cram.train recipe=gpt_demo

The same command on an unfinished run resumes it."""


def main(words: list[str]) -> int:
    """Prepare if needed, train until the budget is spent, evaluate, write the receipt, export."""
    config = read_config(words)
    from cram.build import build_parts, check
    from cram.clock import Budget, Clock, boot_clock
    from cram.console import Progress
    from cram.data.prepare import prepare_shards
    from cram.data.shards import ShardSet
    from cram.finish import finish_run, print_summary
    from cram.record import read_json
    from cram.run_folder import RunFolder

    check(config)
    folder = RunFolder(config)
    if folder.finished:
        print(f"{folder.path} is finished; nothing to do.")
        return print_summary(folder.path, read_json(folder.path / "receipt.json"))
    clock = Clock(Budget.parse(config.budget), boot=boot_clock())
    with clock.account("preparation"):
        if folder.shards:
            shards = ShardSet.open(folder.shards)
        else:
            shards = prepare_shards(config.data, config.wordpiece, config.tokenizer, Progress(), config.special)
        shards.verify()
        parts = build_parts(config, shards)
    session, finished = _train(config, folder, clock, shards, parts)
    if not finished:
        print(
            f"interrupted at {session.last_progress:.1%} of the budget; the state is saved. The same command resumes."
        )
        return INTERRUPTED
    return print_summary(folder.path, finish_run(config, folder.path, session, parts, shards))


def _train(
    config: Config, folder: "RunFolder", clock: "Clock", shards: "ShardSet", parts: "Parts"
) -> tuple["Session", bool]:
    """Start or resume, and train. Returns the session and whether the budget was spent."""
    from cram.build import build_session
    from cram.checkpoint import Checkpoints
    from cram.compilation import compile_session
    from cram.console import BudgetBar
    from cram.device import device_notes, environment
    from cram.heartbeat import Heartbeat, last_beat
    from cram.loop import train
    from cram.probe import check_one_batch, find_micro_rows
    from cram.record import Metrics

    for note in device_notes(config.device, parts.device):
        print(note)
    checkpoints = Checkpoints(folder.path)
    checkpoint = checkpoints.newest()
    check_one_batch(parts.loader, config)
    folder.begin(shards.folder, environment(parts.device))
    metrics = Metrics(folder.path, keep=checkpoint.state["metrics_lines"] if checkpoint else 0)
    with StopSignals() as stop, BudgetBar(folder.path.name, config.budget) as bar:
        session = build_session(config, parts, clock, metrics, checkpoints, bar.show, lambda: stop.asked)
        if checkpoint:
            session.resume(checkpoint)
            print(f"resuming {folder.path} at update {checkpoint.step}, {session.last_progress:.1%} of the budget")
        clock.charge_crash(last_beat(folder.path))
        with Heartbeat(folder.path, clock):
            if not checkpoint:
                find_micro_rows(session, config.batch.micro_rows)
            session.compiled = compile_session(session, config.compile)
            if not checkpoint:
                _start(config, session, shards)
            return session, train(session)


def _start(config: Config, session: "Session", shards: "ShardSet") -> None:
    """Measure the pace, and say whether the data will last."""
    from cram.probe import data_report, measure_pace, rows_needed

    if session.clock.budget.clock == "wall":
        measure_pace(session)
    print(data_report(session, rows_needed(session), shards.tokens * config.data.epochs), flush=True)


if __name__ == "__main__":
    run_door(main, Config, ABOUT)
