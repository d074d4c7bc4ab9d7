"""The comparison of the arms on the terminal, and as results.json and table.md."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cram.ablation.plan import ArmRun
from cram.ablation.table import AblationTable
from cram.files.atomic import write_atomic, write_json
from cram.terminal.progress import format_tokens

RESULTS = "results.json"
PLAIN_WIDTH = 180  # columns of the table where the output is not a terminal
# Headings that are left out where no arm has anything under them.
OPTIONAL = ("column", "rate", "published", "agrees")
TEXTS = ("arm", "column", "time", "published")
HEADINGS = (
    "arm",
    "column",
    "budget",
    "nats",
    "nats, Cramming's rule",
    "over baseline",
    "rate",
    "tokens/s",
    "tokens",
    "rows read",
    "time",
    "memory",
    "seeds",
    "published",
    "agrees",
)


def write_results(folder: Path, table: AblationTable, outcomes: list[dict[str, Any]], runs: Sequence[ArmRun]) -> None:
    """Write results.json, as far as the runs are finished, so that a report can show a table that is still at work.

    Args:
        outcomes: of `summarize_arms`.
        runs: all runs that the table plans, those that try learning rates among them.
    """
    planned = [
        {
            "folder": run.folder.name,
            "arm": run.arm,
            "column": run.column,
            "budget": run.config.budget,
            "seed": run.seed,
            "rate": run.factor,
        }
        for run in runs
    ]
    content = {"about": table.about, "baseline": table.baseline, "arms": outcomes, "runs": planned}
    write_json(folder / RESULTS, content)


def print_outcomes(folder: Path, table: AblationTable, outcomes: list[dict[str, Any]]) -> None:
    """Print the comparison, and write it to the folder as table.md.

    Args:
        outcomes: of `summarize_arms`.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    cells = [_cells(outcome) for outcome in outcomes]
    headings = [name for name in HEADINGS if name not in OPTIONAL or any(row[name] for row in cells)]
    rows = [[row[name] for name in headings] for row in cells]
    write_atomic(folder / "table.md", _markdown(headings, rows).encode())
    printed = Table(title=table.about, title_justify="left", box=SIMPLE)
    for heading in headings:
        printed.add_column(heading, justify="left" if heading in TEXTS else "right")
    for row in rows:
        printed.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(printed)
    print(f"{folder}: {RESULTS}, table.md; over baseline: nats above {table.baseline}'s, negative is better")


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = (headings, ["---"] * len(headings), *rows)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(outcome: dict[str, Any]) -> dict[str, str]:
    """The text under each heading."""
    over_baseline, rate = outcome["over_baseline"], outcome["rate"]
    seconds = {account: value for account, value in outcome["seconds"].items() if value >= 0.5}
    published = outcome["published"]
    if outcome["compares"]:
        published += f"{'; ' if published else ''}here: {outcome['compares']}"
    return {
        "arm": outcome["arm"],
        "column": outcome["column"],
        "budget": outcome["budget"],
        "nats": _format_nats(outcome["nats"]),
        "nats, Cramming's rule": _format_nats(outcome["cramming_rule_nats"]),
        "over baseline": "" if over_baseline is None else f"{over_baseline:+.3f}",
        "rate": "" if rate is None else f"x {rate:g}",
        "tokens/s": f"{outcome['tokens_per_second']['mean']:,.0f}",
        "tokens": format_tokens(outcome["tokens"]["mean"]),
        "rows read": f"{outcome['rows_read']['mean']:,.0f}",
        "time": ", ".join(f"{account} {value:.0f} s" for account, value in seconds.items()),
        "memory": f"{outcome['peak_memory_bytes'] / 1e9:.1f} GB",
        "seeds": str(len(outcome["seeds"])),
        "published": published if outcome["published"] else "",
        "agrees": outcome["agrees"],
    }


def _format_nats(figures: dict[str, Any] | None) -> str:
    """`4.913 (4.901-4.920)`: mean, least and largest."""
    if figures is None:
        return ""
    return f"{figures['mean']:.3f} ({figures['least']:.3f}-{figures['largest']:.3f})"
