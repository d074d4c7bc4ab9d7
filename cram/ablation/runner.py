"""Train the arms of a table one after the other, each in a process of its own, and print the comparison."""

import sys
from pathlib import Path

from cram.ablation.outcomes import summarize_arms
from cram.ablation.plan import ArmRun, plan_runs, select_runs
from cram.ablation.printing import print_outcomes
from cram.ablation.table import AblationTable, load_table, table_names
from cram.command import INTERRUPTED
from cram.config.commands import AblateConfig
from cram.errors import CramError
from cram.machine.processes import start_child
from cram.run.checksums import read_receipt


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
    runs = plan_runs(table, folder, recipe_words)
    selected = select_runs(runs, config.arms)
    _check_arms(selected)
    finished = [_is_finished(run) for run in selected]  # before any training: it also refuses unsuitable folders
    failed = []
    for number, (run, skip) in enumerate(zip(selected, finished, strict=True), 1):
        status = 0 if skip else _train(run, f"[{number}/{len(selected)}]")
        if status == INTERRUPTED:
            print("interrupted; the state is saved. The same command goes on.")
            return INTERRUPTED
        if status:
            failed.append(run)
    print_outcomes(folder, table, summarize_arms(runs, table))
    for run in failed:
        print(f"failed: {run.arm} with seed {run.seed}: {_last_message(run.log)} (the whole log: {run.log})")
    return 1 if failed else 0


def _open_table(config: AblateConfig) -> tuple[Path, AblationTable]:
    """The folder for the runs, and the table with the budget and seeds of the words."""
    if not config.table:
        raise CramError(f"table= is missing. Use table=NAME with one of: {', '.join(table_names())}.")
    name, table = load_table(config.table)
    table.budget = table.budget if config.budget is None else config.budget
    table.seeds = table.seeds if config.seeds is None else config.seeds
    return Path(config.dir) / f"{name}-{table.budget}", table


def _check_arms(runs: list[ArmRun]) -> None:
    """Check each arm for this machine, before hours are spent on the others.

    Raises:
        CramError: naming the arm.
    """
    from cram.build import check

    for run in {run.arm: run for run in runs}.values():  # the seeds of an arm do not differ in what is checked
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


def _train(run: ArmRun, place: str) -> int:
    """Train one arm with one seed in a process of its own, and return its exit status.

    Args:
        place: of the run among all, `[2/6]`.
    """
    print(f"{place} {run.arm}, seed {run.seed}, {run.config.budget}: {run.folder}", flush=True)
    command = [sys.executable, "-m", "cram.train", *run.words]
    if run.log.is_symlink():
        raise CramError(f"{run.log} is a link, and is not written through. Remove it.")
    with run.log.open("a") as log:
        child = start_child(command, log)
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()  # it saves its state
            child.wait()
            return INTERRUPTED


def _last_message(log: Path) -> str:
    """The error message at the end of a log, of one or two lines, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    messages = [number for number, line in enumerate(lines) if line.startswith("cram: ")]
    return " ".join(lines[messages[-1] :] if messages else lines[-1:]) or "it printed nothing"
