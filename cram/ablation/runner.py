"""Train the arms of a table one after the other, each in a process of its own, and report what came out."""

import sys
from pathlib import Path

from cram.ablation.printing import print_outcome
from cram.ablation.table import Run, chosen, load_table, outcome, plan, table_names
from cram.command import INTERRUPTED
from cram.config.commands import AblateConfig
from cram.errors import CramError
from cram.machine.processes import start_child
from cram.run.checksums import read_receipt


def run_table(said: AblateConfig, others: list[str]) -> int:
    """Run what is missing of a table and print it.

    Args:
        said: what the command takes, and `others`: keys of a recipe for every arm, as `key=value` words.

    Returns: the exit status: 1 where an arm failed, 130 where it was interrupted.
    """
    if not said.table:
        raise CramError(f"table= is missing. Say table=NAME with one of: {', '.join(table_names())}.")
    name, table = load_table(said.table)
    table.budget = table.budget if said.budget is None else said.budget
    table.seeds = table.seeds if said.seeds is None else said.seeds
    folder = Path(said.dir) / f"{name}-{table.budget}"
    for word in others:
        if word.partition("=")[0] in ("seed", "run"):
            raise CramError(f"{word}: each run of a table has its own. For more seeds say seeds=N, for a folder dir=.")
    runs = plan(table, folder, others)
    wanted = chosen(runs, said.arms)
    _check(wanted)
    finished = [_finished(run) for run in wanted]
    failed = []
    for number, (run, done) in enumerate(zip(wanted, finished, strict=True), 1):
        status = 0 if done else _train(run, f"[{number}/{len(wanted)}]")
        if status == INTERRUPTED:
            print("interrupted; the state is saved. The same command goes on.")
            return INTERRUPTED
        if status:
            failed.append(run)
    lines = outcome(runs, table)
    print_outcome(folder, table, lines)
    for run in failed:
        print(f"failed: {run.arm} with seed {run.seed}: {_last_words(_log(run))} (all of it: {_log(run)})")
    return 1 if failed else 0


def _check(runs: list[Run]) -> None:
    """Refuse what can be refused before hours are spent on it. Errors: CramError naming the arm."""
    from cram.build import check

    for run in {run.arm: run for run in runs}.values():  # what seeds do not change
        try:
            check(run.config)
        except CramError as error:
            raise CramError(f"arm {run.arm}: {error}") from None


def _finished(run: Run) -> bool:
    """Whether a run is done; one that failed is not, so that its command says again why.

    Errors: CramError where its folder belongs to other words, or to another budget.
    """
    from cram.run.folder import RunFolder

    try:
        folder = RunFolder(run.config)
        if folder.budget not in (None, run.config.parse_budget()):
            raise CramError(f"run={run.folder} has another budget than {run.config.budget}. Choose another run=.")
        return folder.finished and not read_receipt(run.folder).get("failed")
    except CramError as error:
        raise CramError(f"arm {run.arm}: {error} For a table that is dir=.") from None


def _train(run: Run, place: str) -> int:
    """Train one arm with one seed in a process of its own; its exit status."""
    print(f"{place} {run.arm}, seed {run.seed}, {run.config.budget}: {run.folder}", flush=True)
    command = [sys.executable, "-m", "cram.train", *run.words]
    if _log(run).is_symlink():
        raise CramError(f"{_log(run)} is a link, and is not written through. Remove it.")
    with _log(run).open("a") as log:
        child = start_child(command, log)
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            return INTERRUPTED


def _log(run: Run) -> Path:
    return run.folder / "train.log"


def _last_words(log: Path) -> str:
    """The refusal that ends a log, of one or two lines, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    refused = [number for number, line in enumerate(lines) if line.startswith("cram: ")]
    return " ".join(lines[refused[-1] :] if refused else lines[-1:]) or "it said nothing"
