"""Train the arms of a table, each in a process of its own, and print the comparison."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cram.ablation.outcomes import choose_rates, summarize_arms
from cram.ablation.plan import ArmRun, plan_runs, plan_trials, select_runs
from cram.ablation.printing import print_outcomes, write_results
from cram.ablation.table import AblationTable, load_table, table_names
from cram.command import INTERRUPTED
from cram.config.commands import AblateConfig
from cram.errors import CramError
from cram.machine.processes import start_child
from cram.run.checksums import read_receipt

ArmRunChild = subprocess.Popen[bytes]
POLL_SECONDS = 0.2  # between two looks at the runs that are at work


def run_table(config: AblateConfig, recipe_words: list[str]) -> int:
    """Train the missing runs of a table and print the comparison.

    Args:
        config: of the command.
        recipe_words: `key=value` words of a recipe, for every arm.

    Returns:
        The exit status: 1 where an arm failed, 130 where it was interrupted.

    Raises:
        CramError: for words, a table or a run folder that cannot be used.
    """
    folder, table = _open_table(config)
    for word in recipe_words:
        if word.partition("=")[0] in ("seed", "run"):
            raise CramError(
                f"{word}: each run of a table has its own. Use seeds=N for more seeds, dir=FOLDER for another folder."
            )
    trials = plan_trials(table, folder, recipe_words)

    @cache
    def plan(*rates: tuple[str, float]) -> list[ArmRun]:
        return plan_runs(table, folder, recipe_words, dict(rates))

    def write() -> list[dict[str, Any]]:
        rates = choose_rates(trials)
        runs = plan(*rates.items())
        outcomes = summarize_arms(runs, table, rates)
        write_results(folder, table, outcomes, [*trials, *runs])
        return outcomes

    _check_arms(select_runs(plan(), config.arms, config.columns), table.jobs)
    if trials and _train_all(select_runs(trials, config.arms), table.jobs, write) is None:
        return INTERRUPTED
    runs = plan(*choose_rates(trials).items())
    failed = _train_all(select_runs(runs, config.arms, config.columns), table.jobs, write)
    if failed is None:
        return INTERRUPTED
    print_outcomes(folder, table, write())
    for run in failed:
        print(f"failed: {run.arm} with seed {run.seed}: {_last_message(run.log)} (the whole log: {run.log})")
    return 1 if failed else 0


def _train_all(runs: list[ArmRun], jobs: int, write: Callable[[], Any]) -> list[ArmRun] | None:
    """Train the runs that are not finished, some at the same time.

    Args:
        write: writes the results so far; it is called before the first run and after each.

    Returns:
        Those that failed; None where the training was interrupted.
    """
    finished = [_is_finished(run) for run in runs]  # before any training: it also refuses unsuitable folders
    waiting = [(number, run) for number, (run, skip) in enumerate(zip(runs, finished, strict=True), 1) if not skip]
    working: dict[ArmRunChild, ArmRun] = {}
    failed = []
    write()
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                number, run = waiting.pop(0)
                working[_start(run, f"[{number}/{len(runs)}]")] = run
            for child in [child for child in working if child.poll() is not None]:
                run = working.pop(child)
                if child.returncode == INTERRUPTED:
                    raise KeyboardInterrupt
                if child.returncode:
                    failed.append(run)
                else:
                    write()
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for child in working:
            child.terminate()  # it saves its state
        for child in working:
            child.wait()
        print("interrupted; the state is saved. The same command goes on.")
        return None
    return failed


def _open_table(config: AblateConfig) -> tuple[Path, AblationTable]:
    """The folder for the runs, and the table with the budget and seeds of the words."""
    if not config.table:
        raise CramError(f"table= is missing. Use table=NAME with one of: {', '.join(table_names())}.")
    name, table = load_table(config.table)
    table.budget = table.budget if config.budget is None else config.budget
    table.tokens = table.tokens if config.tokens is None else config.tokens
    table.seeds = table.seeds if config.seeds is None else config.seeds
    table.jobs = table.jobs if config.jobs is None else config.jobs
    return Path(config.dir) / f"{name}-{table.budget}", table


def _check_arms(runs: list[ArmRun], jobs: int) -> None:
    """Check each arm for this machine, before hours are spent on the others.

    Args:
        jobs: runs at the same time.

    Raises:
        CramError: naming the arm.
    """
    from cram.build import check

    # The seeds of an arm do not differ in what is checked.
    for run in {(run.arm, run.column, run.share): run for run in runs}.values():
        if jobs > 1 and run.config.threads != 1:
            raise CramError(
                f"jobs={jobs}: arm {run.arm} has threads={run.config.threads or 'null'}, and runs at the same time "
                "must not take each other's cores. Add threads=1, which holds for all arms, or use jobs=1."
            )
        try:
            check(run.config)
        except CramError as error:
            raise CramError(f"arm {run.arm}: {error}") from None


def _is_finished(run: ArmRun) -> bool:
    """Whether a run is finished. A failed one is not, so that its command reports the reason again.

    Raises:
        CramError: where its folder belongs to other words, or to another budget.
    """
    from cram.run.folder import RunFolder, keep_begun_plan

    try:
        folder = RunFolder(keep_begun_plan(run.config))
        if folder.budget not in (None, run.config.parse_budget()):
            raise CramError(f"run={run.folder} has another budget than {run.config.budget}. Choose another run=.")
        return folder.finished and not read_receipt(run.folder).get("failed")
    except CramError as error:
        raise CramError(f"arm {run.arm}: {error} The folder of a table is dir=.") from None


def _start(run: ArmRun, place: str) -> ArmRunChild:
    """Start the training of one arm with one seed in a process of its own.

    Args:
        place: of the run among all, `[2/6]`.
    """
    column = f", {run.column}" if run.column else ""
    rate = "" if run.factor is None else f", rate x {run.factor:g}"
    print(f"{place} {run.arm}{column}{rate}, seed {run.seed}, {run.config.budget}: {run.folder}", flush=True)
    if run.log.is_symlink():
        raise CramError(f"{run.log} is a link, and is not written through. Remove it.")
    with run.log.open("a") as log:
        return start_child([sys.executable, "-m", "cram.train", *run.words], log)


def _last_message(log: Path) -> str:
    """The error message at the end of a log, of one or two lines, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    messages = [number for number, line in enumerate(lines) if line.startswith("cram: ")]
    return " ".join(lines[messages[-1] :] if messages else lines[-1:]) or "it printed nothing"
