"""Train the arms of a table, each in a process of its own, and print the comparison."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cram.ablation.devices import choose_devices, describe_devices
from cram.ablation.outcomes import choose_rates, summarize_arms
from cram.ablation.plan import ArmRun, plan_runs, plan_trials, select_runs
from cram.ablation.printing import print_outcomes, write_results
from cram.ablation.table import AblationTable, load_table, table_names
from cram.config.commands import AblateConfig
from cram.config.recipe import keep_last_words
from cram.errors import CramError
from cram.machine.processes import INTERRUPTED, start_child
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
    devices = choose_devices(config, table, recipe_words)
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

    _check_arms(select_runs(plan(), config.arms, config.columns), table.jobs, devices)
    at_once: Sequence[str | None] = devices or [None] * table.jobs
    if trials and _train_all(select_runs(trials, config.arms), at_once, write) is None:
        return INTERRUPTED
    runs = plan(*choose_rates(trials).items())
    failed = _train_all(select_runs(runs, config.arms, config.columns), at_once, write)
    if failed is None:
        return INTERRUPTED
    print_outcomes(folder, table, write())
    for run in failed:
        print(f"failed: {run.arm} with seed {run.seed}: {_last_message(run.log)} (the whole log: {run.log})")
    return 1 if failed else 0


def _train_all(runs: list[ArmRun], devices: Sequence[str | None], write: Callable[[], Any]) -> list[ArmRun] | None:
    """Train the runs that are not finished, as many at the same time as there are devices, one on each.

    Args:
        devices: word for `device=` of each; None for that of the run's own words.
        write: writes the results so far; it is called before the first run and after each.

    Returns:
        Those that failed; None where the training was interrupted.
    """
    finished = [_is_finished(run) for run in runs]  # before any training: it also refuses unsuitable folders
    waiting = [(number, run) for number, (run, skip) in enumerate(zip(runs, finished, strict=True), 1) if not skip]
    free = list(devices)
    working: dict[ArmRunChild, tuple[ArmRun, str | None]] = {}
    failed = []
    write()
    try:
        while waiting or working:
            while waiting and free:
                (number, run), device = waiting.pop(0), free.pop(0)
                working[_start(run, f"[{number}/{len(runs)}]", device)] = run, device
            for child in [child for child in working if child.poll() is not None]:
                run, device = working.pop(child)
                free.append(device)
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


def _check_arms(runs: list[ArmRun], jobs: int, devices: list[str] | None) -> None:
    """Check each arm for this machine, before hours are spent on the others.

    Args:
        jobs: runs at the same time, where no devices are given.
        devices: that train a run each; None where each run has the device of its own words.

    Raises:
        CramError: naming the arm.
    """
    from cram.build import check
    from cram.machine.device_list import format_devices

    words = f"jobs={jobs}" if devices is None else format_devices(devices)
    shared = jobs > 1 if devices is None else devices.count("cpu") > 1
    # The seeds of an arm do not differ in what is checked.
    for run in {(run.arm, run.column, run.share): run for run in runs}.values():
        if shared and run.config.threads != 1:
            raise CramError(
                f"{words}: arm {run.arm} has threads={run.config.threads or 'null'}, and runs at the same time "
                "must not take each other's cores. Add threads=1, which holds for all arms, or train one at a time."
            )
        try:
            for device in dict.fromkeys(devices or [run.config.device]):
                check(replace(run.config, device=device))
        except CramError as error:
            raise CramError(f"arm {run.arm}: {error}") from None
    if devices and (note := describe_devices(devices)):
        print(note)


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


def _start(run: ArmRun, place: str, device: str | None) -> ArmRunChild:
    """Start the training of one arm with one seed in a process of its own.

    Args:
        place: of the run among all, `[2/6]`.
        device: word for `device=`; None for that of the run's words.
    """
    column = f", {run.column}" if run.column else ""
    rate = "" if run.factor is None else f", rate x {run.factor:g}"
    on = f", {device}" if device else ""
    print(f"{place} {run.arm}{column}{rate}, seed {run.seed}, {run.config.budget}{on}: {run.folder}", flush=True)
    if run.log.is_symlink():
        raise CramError(f"{run.log} is a link, and is not written through. Remove it.")
    words = keep_last_words([*run.words, f"device={device}"]) if device else run.words
    with run.log.open("a") as log:
        return start_child([sys.executable, "-m", "cram.train", *words], log)


def _last_message(log: Path) -> str:
    """The error message at the end of a log, of one or two lines, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    messages = [number for number, line in enumerate(lines) if line.startswith("cram: ")]
    return " ".join(lines[messages[-1] :] if messages else lines[-1:]) or "it printed nothing"
