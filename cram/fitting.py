"""One run from a config to its receipt: prepare, train, finish. `cram.train` and `cram.fit` call it.

Under torchrun, rank 0 does all this, and the other ranks carry out its orders from the first update to the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cram.build import build_parts, check
from cram.clock import Clock, boot_clock
from cram.config.config import Config
from cram.config.schema import build_config, collect_keys, get_value
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.distributed.launch import Launch, read_launch
from cram.distributed.meeting import Meeting, meet
from cram.distributed.orders import end_orders, follow
from cram.distributed.rank_device import rank_device
from cram.distributed.ranks import Ranks
from cram.distributed.shares import check_shares
from cram.errors import CramError
from cram.hub.initial import check_tokenizer, read_initial
from cram.machine.device import pick_device, set_threads
from cram.machine.host import cores
from cram.methods.method import Method
from cram.optim.schedule import decay_begins
from cram.planning import plan_notes, plan_run, probe_again
from cram.reference_time import ExecutedWork, ReferenceTime, load_table
from cram.run.checkpoint import Checkpoints
from cram.run.checksums import read_receipt
from cram.run.folder import RunFolder, keep_begun_plan
from cram.run.receipt import summarize
from cram.training.extension import ExtensionPlan, plan_extension
from cram.training.finish import finish_run
from cram.training.run_page import RunPage
from cram.training.session import Parts, RankSession
from cram.training.start import loop_config, train_run


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
    launch = read_launch()
    config = keep_begun_plan(replace(config, device=rank_device(config.device, launch)))
    check(config)
    _check_shares(config, launch.size)
    with meet(launch) as meeting:
        if not launch.leads:
            return _follow(config, methods, launch, meeting)
        return _lead(config, methods, launch, meeting)


def _lead(config: Config, methods: Sequence[Method], launch: Launch, meeting: Meeting) -> Outcome:
    """Do what a process does that is alone, or rank 0 of several."""
    folder, budget = RunFolder(config), config.parse_budget()
    extension = plan_extension(folder, config, budget, decay_begins(config.schedule))
    if folder.finished and not extension:
        print(f"{folder.path} is finished; nothing to do.")
        meeting.announce({"finished": str(folder.path)})
        return Outcome(folder.path, read_receipt(folder.path), 1.0)
    initial = read_initial(config) if config.init and not Checkpoints(folder.path).steps() else None
    work = ExecutedWork()
    clock = Clock(budget, boot=boot_clock(), reference=_reference(config, work))
    meeting.enter("preparing")
    with clock.account("preparation"):
        if folder.shards:
            shards = ShardSet.open(folder.shards)
        else:
            tokenizer = TokenizerSource(config.tokenizer, config.wordpiece, config.special)
            shards = prepare_shards(config.data, tokenizer)
        shards.verify()
        threads = set_threads(_threads(config, launch))
        if config.model.size == "auto":
            config = plan_run(config, shards, clock, launch.size)
            folder.plan(config)
            _check_shares(config, launch.size)
        for note in plan_notes(config):
            print(note)
        values = {name: get_value(config, name) for name in collect_keys(Config)}
        meeting.announce({"config": values, "shards": str(shards.folder), "hash": shards.hash})
        ranks = meeting.form_groups(pick_device(config.device))
        parts = build_parts(config, shards, work, methods, ranks)
        if initial:
            check_tokenizer(config, shards.tokenizer_path)
            parts.model.load_state_dict(initial)
    try:
        outcome = _train(config, folder, clock, shards, parts, extension, threads, ranks)
    except CramError:
        end_orders(ranks, None)
        raise
    end_orders(ranks, {"folder": str(outcome.folder), "receipt": outcome.receipt, "progress": outcome.progress})
    return outcome


def _train(
    config: Config,
    folder: RunFolder,
    clock: Clock,
    shards: ShardSet,
    parts: Parts,
    extension: ExtensionPlan | None,
    threads: int,
    ranks: Ranks,
) -> Outcome:
    """Train, and write everything that a finished run leaves behind."""
    with RunPage(folder.path, config, clock) as page:
        trained = train_run(config, folder, clock, shards, parts, extension, threads, page.write_live, ranks)
        progress = trained.session.state.last_progress
        if not trained.finished:
            trained.session.metrics.close()
            trained.session.metrics.end_tracking()
            return Outcome(folder.path, None, progress)
        ranks.enter("finishing")
        with clock.account("evaluation"):
            probe_seconds = probe_again(config, shards, ranks.size)
        receipt = finish_run(config, folder.path, trained.session, shards, probe_seconds)
        trained.session.metrics.end_tracking(summarize(receipt))
        page.write_last()
    return Outcome(folder.path, receipt, progress)


def _follow(config: Config, methods: Sequence[Method], launch: Launch, meeting: Meeting) -> Outcome:
    """Carry out the orders of rank 0, whose config holds but for the device.

    Raises:
        CramError: rank 0 cannot go on, or this rank finds other data than rank 0 has. Rank 0 says why.
    """
    told = meeting.await_announcement()
    if "finished" in told:
        return Outcome(Path(told["finished"]), {}, 1.0)
    config = build_config(Config, told["config"] | {"device": config.device})
    shards = ShardSet.open(Path(told["shards"]))
    if shards.hash != told["hash"]:
        raise CramError(f"data.dir: rank {launch.rank} finds other data in {shards.folder} than rank 0.")
    set_threads(_threads(config, launch))
    ranks = meeting.form_groups(pick_device(config.device))
    parts = build_parts(config, shards, methods=methods, ranks=ranks)
    clock = Clock(config.parse_budget(), reference=_reference(config, parts.work))
    result = follow(RankSession(parts=parts, config=loop_config(config), clock=clock, ranks=ranks))
    if result is None:
        raise CramError("rank 0 has ended the run.")
    return Outcome(Path(result["folder"]), result["receipt"], result["progress"])


def _reference(config: Config, work: ExecutedWork) -> ReferenceTime | None:
    """What measures a budget of reference system time; None for other budgets."""
    return ReferenceTime(load_table(config.rst.table), work, config.rst.overheads) if config.rst.table else None


def _threads(config: Config, launch: Launch) -> int | None:
    """The CPU threads of this process: ranks on one machine share its cores evenly."""
    return config.threads or (None if launch.size == 1 else max(1, cores() // launch.local_size))


def _check_shares(config: Config, ranks: int) -> None:
    """Check that the rows of the first and of the largest update can be shared out evenly.

    Raises:
        CramError: naming the key whose tokens cannot.
    """
    if config.model.size == "given" or "batch.tokens" in config.plan.keep:  # else a plan chooses the batch
        check_shares(config.batch.tokens, config.data.seq_len, ranks, "batch.tokens")
    if config.batch.start_tokens:
        check_shares(config.batch.start_tokens, config.data.seq_len, ranks, "batch.start_tokens")
