"""`python -m cram.ablate table=NAME`: train the arms of a table at equal budget and print what came out."""

import sys
from pathlib import Path
from typing import Any

from cram.ablation.table import Run, Table, chosen, load_table, outcome, plan, table_names
from cram.machine.processes import begin_child
from cram.clock import Budget
from cram.command import INTERRUPTED, run_door
from cram.terminal.progress import tokens
from cram.config.commands import AblateConfig
from cram.errors import CramError
from cram.config.recipe import read_words
from cram.files.record import write_atomic, write_json
from cram.run.files import read_receipt
from cram.config.schema import keys

ABOUT = """Train the arms of a table at equal budget, seed by seed, and print held-out loss, speed and tokens.

    python -m cram.ablate table=recipe budget=10m seeds=3 data.source='texts/*.jsonl.zst'
    python -m cram.ablate table=levers arms=[cram,adamw] budget=3m

Words that are not below are keys of a recipe, for every arm; what an arm sets itself stands, and is meant for the
table's size of model. The same command again trains what is missing."""

PLAIN_WIDTH = 140  # columns of a table that is written to a file


def main(words: list[str]) -> int:
    """Run what is missing of a table and print it; 1 where an arm failed."""
    known = keys(AblateConfig)
    own = [word for word in words if word.partition("=")[0] in known]
    said = read_words(AblateConfig, own)
    if not said.table:
        raise CramError(f"table= is missing. Say table=NAME with one of: {', '.join(table_names())}.")
    name, table = load_table(said.table)
    table.budget = table.budget if said.budget is None else said.budget
    table.seeds = table.seeds if said.seeds is None else said.seeds
    folder = Path(said.dir) / f"{name}-{table.budget}"
    others = [word for word in words if word not in own]
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
    _write(folder, table, lines)
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
        if folder.budget not in (None, Budget.parse(run.config.budget)):
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
        child = begin_child(command, log)
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


def _write(folder: Path, table: Table, lines: list[dict[str, Any]]) -> None:
    """Print the table, and write it as results.json and table.md."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as Grid

    write_json(folder / "results.json", {"about": table.about, "baseline": table.baseline, "arms": lines})
    heads = ("arm", "budget", "nats", "nats, Cramming's rule", "over baseline", "tokens/s", "tokens", "seeds")
    cells = [_cells(line) for line in lines]
    rows = ["| " + " | ".join(row) + " |" for row in (heads, tuple("---" for _ in heads), *cells)]
    write_atomic(folder / "table.md", ("\n".join(rows) + "\n").encode())
    grid = Grid(title=table.about, title_justify="left", box=SIMPLE)
    for head in heads:
        grid.add_column(head, justify="left" if head == "arm" else "right")
    for row in cells:
        grid.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(grid)
    print(f"{folder}: results.json, table.md; over baseline: nats above {table.baseline}'s, negative is better")


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    over = line["over_baseline"]
    return (
        line["arm"],
        line["budget"],
        _nats(line["nats"]),
        _nats(line["cramming_rule_nats"]),
        "" if over is None else f"{over:+.3f}",
        f"{line['tokens_per_second']['mean']:,.0f}",
        tokens(line["tokens"]["mean"]),
        str(len(line["seeds"])),
    )


def _nats(figures: dict[str, Any] | None) -> str:
    """`4.913 (4.901-4.920)`: mean, least and largest."""
    if figures is None:
        return ""
    return f"{figures['mean']:.3f} ({figures['least']:.3f}-{figures['largest']:.3f})"


if __name__ == "__main__":
    run_door(main, AblateConfig, ABOUT)
