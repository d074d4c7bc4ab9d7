"""The comparison of the arms on the terminal, and as results.json and table.md."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cram.ablation.outcomes import RULE
from cram.ablation.plan import ArmRun
from cram.ablation.table import AblationTable
from cram.evaluation.halves import HALVES, JUDGING
from cram.files.atomic import write_atomic, write_json
from cram.machine.different_devices import describe_different_devices
from cram.terminal.progress import format_tokens

RESULTS = "results.json"
PLAIN_WIDTH = 220  # columns of the table where the output is not a terminal
# Of the whole held-out text and of its halves, in the order of HALVES.
NATS_HEADINGS = ("nats", "tuning", "judging")
RULE_HEADINGS = ("by Cramming's rule", "tuning, Cramming's", "judging, Cramming's")
# Headings that are left out where no arm has anything under them.
OPTIONAL = ("column", *NATS_HEADINGS, *RULE_HEADINGS, "bits", "compares", "rate", "published", "agrees")
TEXTS = ("arm", "column", "compares", "time", "published")
HEADINGS = (
    "arm",
    "column",
    "budget",
    *NATS_HEADINGS,
    *RULE_HEADINGS,
    "bits",
    "over baseline",
    "compares",
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
    arms = _arm_words(table)
    note = describe_different_devices((outcome["arm"], outcome["device"]) for outcome in outcomes)
    text = _markdown(headings, rows) + "\n" + "".join(f"- `{name}`: {words}\n" for name, words in arms.items())
    text += f"\n{note}\n" if note else ""
    write_atomic(folder / "table.md", text.encode())
    printed = Table(title=table.about, title_justify="left", box=SIMPLE)
    for heading in headings:
        printed.add_column(heading, justify="left" if heading in TEXTS else "right")
    for row in rows:
        printed.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(printed)
    for name, words in arms.items():
        print(f"{name}: {words}")
    print(f"\n{note}\n" if note else "")
    print(
        f"{folder}: {RESULTS}, table.md; over baseline: nats above {table.baseline}'s, negative is better\n"
        "tuning, judging: nats on the half of the held-out text by which rates are chosen, and on the one by which "
        "arms are compared"
    )


def _arm_words(table: AblationTable) -> dict[str, str]:
    """What makes each arm, by its name: its words, and the learning rates that it tries."""
    arms = {}
    for name, arm in table.arms.items():
        arms[name] = " ".join(arm.words) or "the words of the table"
        if table.rates:
            tried = ", ".join(f"{rate:g}" for rate in table.rates)
            arms[name] += f"; {arm.rate_key or table.rate_key} tried at {tried} times its value"
    return arms


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = (headings, ["---"] * len(headings), *rows)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(outcome: dict[str, Any]) -> dict[str, str]:
    """The text under each heading."""
    over_baseline, rate = outcome["over_baseline"], outcome["rate"]
    seconds = {account: value for account, value in outcome["seconds"].items() if value >= 0.5}
    return {
        "arm": outcome["arm"],
        "column": outcome["column"],
        "budget": outcome["budget"],
        **_loss_cells(outcome),
        "over baseline": "" if over_baseline is None else f"{over_baseline:+.3f}",
        "compares": _comparison(outcome),
        "rate": "" if rate is None else f"x {rate:g}",
        "tokens/s": f"{outcome['tokens_per_second']['mean']:,.0f}",
        "tokens": format_tokens(outcome["tokens"]["mean"]),
        "rows read": f"{outcome['rows_read']['mean']:,.0f}",
        "time": ", ".join(f"{account} {value:.0f} s" for account, value in seconds.items()),
        "memory": f"{outcome['peak_memory_bytes'] / 1e9:.1f} GB",
        "seeds": str(len(outcome["seeds"])),
        "published": outcome["published"],
        "agrees": outcome["agrees"],
    }


def _loss_cells(outcome: dict[str, Any]) -> dict[str, str]:
    """The losses of both halves; those of the whole where no run has halves. The terminal has no room for all."""
    halves = outcome["halves"]
    whole = outcome if not any(halves[half]["nats"] for half in HALVES) else {}
    parts = (whole, *(halves[half] for half in HALVES))
    cells = dict(zip(NATS_HEADINGS, [_format_nats(part.get("nats")) for part in parts], strict=True))
    cells |= zip(RULE_HEADINGS, [_format_nats(part.get(f"{RULE}nats")) for part in parts], strict=True)
    # Of a masked model, nats by two rules tell more than bits.
    causal = outcome[f"{RULE}nats"] is None
    return cells | {"bits": _format_nats(halves[JUDGING]["bits"] or outcome["bits"]) if causal else ""}


def _comparison(outcome: dict[str, Any]) -> str:
    """How an arm compares with the baseline, and by Cramming's rule where that says something else."""
    compares, by_rule = outcome["compares"], outcome[f"{RULE}compares"]
    return compares if by_rule in ("", compares) else f"{compares}; by Cramming's rule {by_rule}"


def _format_nats(figures: dict[str, Any] | None) -> str:
    """`4.913 (4.901-4.920)`: mean, least and largest; the mean alone of a single run."""
    if figures is None:
        return ""
    if len(figures["all"]) == 1:
        return f"{figures['mean']:.3f}"
    return f"{figures['mean']:.3f} ({figures['least']:.3f}-{figures['largest']:.3f})"
