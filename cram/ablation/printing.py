"""The table of an ablation as a person sees it, and as files."""

import sys
from pathlib import Path
from typing import Any

from cram.ablation.table import Table
from cram.files.atomic import write_atomic, write_json
from cram.terminal.progress import format_tokens

PLAIN_WIDTH = 140  # columns of a table that is written to a file


def print_outcome(folder: Path, table: Table, lines: list[dict[str, Any]]) -> None:
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
        format_tokens(line["tokens"]["mean"]),
        str(len(line["seeds"])),
    )


def _nats(figures: dict[str, Any] | None) -> str:
    """`4.913 (4.901-4.920)`: mean, least and largest."""
    if figures is None:
        return ""
    return f"{figures['mean']:.3f} ({figures['least']:.3f}-{figures['largest']:.3f})"
