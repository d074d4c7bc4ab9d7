"""One run from a config to its receipt: prepare, train, finish. `cram.train` and `cram.fit` call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cram.build import build_parts, check
from cram.clock import Clock, boot_clock
from cram.config.config import Config
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.hub.initial import check_tokenizer, read_initial
from cram.machine.device import set_threads
from cram.methods.method import Method
from cram.optim.schedule import decay_begins
from cram.planning import plan_notes, plan_run, probe_again
from cram.reference_time import ExecutedWork, ReferenceTime, load_table
from cram.run.checkpoint import Checkpoints
from cram.run.checksums import read_receipt
from cram.run.folder import RunFolder, keep_begun_plan
from cram.run.receipt import summarize
from cram.training.extension import plan_extension
from cram.training.finish import finish_run
from cram.training.run_page import RunPage
from cram.training.start import train_run


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    receipt: of the finished run; None where it was asked to stop before its budget was spent.
    progress: the spent share of the budget.
    """

    folder: Path
    receipt: dict[str, Any] | None
    progress: float


def fit_config(config: Config, methods: Sequence[Method] = ()) -> Outcome:
    """Prepare the data if needed, train until the budget is spent, evaluate, write the receipt, export.

    A run that is unfinished is resumed, one that had a shorter budget is extended, and one that is finished is left as
    it is.

    Args:
        methods: methods beside those that the config asks for.

    Raises:
        CramError: for what the config, the data, the run folder or this machine do not allow.
    """
    config = keep_begun_plan(config)
    check(config)
    folder, budget = RunFolder(config), config.parse_budget()
    extension = plan_extension(folder, config, budget, decay_begins(config.schedule))
    if folder.finished and not extension:
        print(f"{folder.path} is finished; nothing to do.")
        return Outcome(folder.path, read_receipt(folder.path), 1.0)
    initial = read_initial(config) if config.init and not Checkpoints(folder.path).steps() else None
    work = ExecutedWork()
    reference = ReferenceTime(load_table(config.rst.table), work, config.rst.overheads) if config.rst.table else None
    clock = Clock(budget, boot=boot_clock(), reference=reference)
    with clock.account("preparation"):
        if folder.shards:
            shards = ShardSet.open(folder.shards)
        else:
            tokenizer = TokenizerSource(config.tokenizer, config.wordpiece, config.special)
            shards = prepare_shards(config.data, tokenizer)
        shards.verify()
        threads = set_threads(config.threads)
        if config.model.size == "auto":
            config = plan_run(config, shards, clock)
            folder.plan(config)
        for note in plan_notes(config):
            print(note)
        parts = build_parts(config, shards, work, methods)
        if initial:
            check_tokenizer(config, shards.tokenizer_path)
            parts.model.load_state_dict(initial)
    with RunPage(folder.path, config, clock) as page:
        trained = train_run(config, folder, clock, shards, parts, extension, threads, page.write_live)
        progress = trained.session.state.last_progress
        if not trained.finished:
            trained.session.metrics.close()
            trained.session.metrics.end_tracking()
            return Outcome(folder.path, None, progress)
        with clock.account("evaluation"):
            probe_seconds = probe_again(config, shards)
        receipt = finish_run(config, folder.path, trained.session, shards, probe_seconds)
        trained.session.metrics.end_tracking(summarize(receipt))
        page.write_last()
    return Outcome(folder.path, receipt, progress)
