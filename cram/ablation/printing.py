"""The comparison of the arms on the terminal, and as results.json and table.md."""

import sys
from pathlib import Path
from typing import Any

from cram.ablation.table import AblationTable
from cram.files.atomic import write_atomic, write_json
from cram.terminal.progress import format_tokens

PLAIN_WIDTH = 140  # columns of the table where the output is not a terminal
HEADINGS = ("arm", "budget", "nats", "nats, Cramming's rule", "over baseline", "tokens/s", "tokens", "seeds")


def print_outcomes(folder: Path, table: AblationTable, outcomes: list[dict[str, Any]]) -> None:
    """Print the comparison, and write it to the folder.

    Args:
        outcomes: of `summarize_arms`.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    write_json(folder / "results.json", {"about": table.about, "baseline": table.baseline, "arms": outcomes})
    rows = [_cells(outcome) for outcome in outcomes]
    write_atomic(folder / "table.md", _markdown(rows).encode())
    printed = Table(title=table.about, title_justify="left", box=SIMPLE)
    for heading in HEADINGS:
        printed.add_column(heading, justify="left" if heading == "arm" else "right")
    for row in rows:
        printed.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(printed)
    print(f"{folder}: results.json, table.md; over baseline: nats above {table.baseline}'s, negative is better")


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = (HEADINGS, ("---",) * len(HEADINGS), *rows)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(outcome: dict[str, Any]) -> tuple[str, ...]:
    over_baseline = outcome["over_baseline"]
    return (
        outcome["arm"],
        outcome["budget"],
        _format_nats(outcome["nats"]),
        _format_nats(outcome["cramming_rule_nats"]),
        "" if over_baseline is None else f"{over_baseline:+.3f}",
        f"{outcome['tokens_per_second']['mean']:,.0f}",
        format_tokens(outcome["tokens"]["mean"]),
        str(len(outcome["seeds"])),
    )


def _format_nats(figures: dict[str, Any] | None) -> str:
    """`4.913 (4.901-4.920)`: mean, least and largest."""
    if figures is None:
        return ""
    return f"{figures['mean']:.3f} ({figures['least']:.3f}-{figures['largest']:.3f})"
