"""How the recipes of several runs differ: the keys alone that they do not share."""

from collections.abc import Sequence
from typing import Any

from cram.config.config import Config
from cram.config.schema import collect_keys, get_value
from cram.reporting.page.blocks import Block, Cell, Column, Fold, Table, Text
from cram.reporting.reading.runs import RunData

# Of a run and its budget; they stand in the table of results.
OWN_KEYS = ("recipe", "run")


def recipe_differences(runs: Sequence[RunData], labels: Sequence[str]) -> list[Block]:
    """Show the keys whose values differ, with a column for each run.

    Keys that follow from the machine, from paths or from a plan, and that do not change what is learned, are told
    apart.

    Args:
        runs: two at least.
        labels: their names, all different.
    """
    specs = collect_keys(Config)
    values = {
        name: [format_value(get_value(run.config, name)) for run in runs] for name in specs if name not in OWN_KEYS
    }
    differing = {name: texts for name, texts in values.items() if len(set(texts)) > 1}
    of_recipe = [name for name in differing if _decides(name)]
    of_machine = [name for name in differing if not _decides(name)]
    blocks: list[Block] = []
    if of_recipe:
        note = f"Values that are the same as those of {labels[0]} are muted."
        blocks.append(_table(of_recipe, differing, labels, note if len(runs) > 2 else ""))
    else:
        blocks.append(Text("The recipes are the same in every key that changes what is learned.", tone="note"))
    if of_machine:
        title = f"{len(of_machine)} further keys differ, which follow from the machine, paths, intervals or a plan"
        blocks.append(Fold(title, [_table(of_machine, differing, labels)]))
    return blocks


def differing_keys(runs: Sequence[RunData]) -> list[str]:
    """The keys that change what is learned and that runs do not share, the budget among them."""
    names = [name for name in collect_keys(Config) if name not in OWN_KEYS and _decides(name)]
    return [name for name in names if len({format_value(get_value(run.config, name)) for run in runs}) > 1]


def _decides(name: str) -> bool:
    """Whether a key changes what a run learns."""
    return name == "budget" or bool(collect_keys(Config)[name].metadata["identifies"])


def _table(names: Sequence[str], values: dict[str, list[str]], labels: Sequence[str], note: str = "") -> Table:
    columns = [Column("key"), *(Column(label) for label in labels)]
    rows = [[Cell(name), *_cells(values[name])] for name in names]
    return Table(columns, rows, note=note)


def _cells(texts: Sequence[str]) -> list[Cell]:
    """The values of a key; beyond two runs those that are the same as that of the first one are muted."""
    several = len(texts) > 2
    return [
        Cell(text, tone="note" if several and number and text == texts[0] else "plain")
        for number, text in enumerate(texts)
    ]


def format_value(value: Any) -> str:
    """A value as a recipe has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)
