"""Runs of the same recipe with several seeds: how far chance alone spreads their losses."""

import statistics
from collections.abc import Sequence
from itertools import takewhile

from cram.config.config import Config
from cram.config.schema import collect_keys, get_value
from cram.reporting.page.blocks import Block, Cell, Column, Picture, Table, Text
from cram.reporting.pictures.spread import Spread, draw_spread
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.formats import format_fixed, is_number
from cram.reporting.sections.results import score

BETWEEN = "-_./ "  # what stands between the parts of a name


def seed_blocks(runs: Sequence[RunData], labels: Sequence[str]) -> list[Block]:
    """Show runs that differ in their seed alone, with their spread; nothing where there are no two of them.

    Args:
        runs: of any recipes.
        labels: their names, all different.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, run in enumerate(runs):
        if is_number(score(run, "nats_per_token")):
            groups.setdefault(_recipe_of(run), []).append(number)
    if all(len(members) < 2 for members in groups.values()):
        return []
    names = _group_names([[labels[number] for number in members] for members in groups.values()])
    losses = [[score(runs[number], "nats_per_token") for number in members] for members in groups.values()]
    columns = [
        Column("recipe"),
        Column("runs", numeric=True),
        *(Column(name, "nats", numeric=True) for name in ("mean", "least", "largest", "standard deviation")),
    ]
    rows = []
    for name, values in zip(names, losses, strict=True):
        deviation = statistics.stdev(values) if len(values) > 1 else None
        figures = (statistics.fmean(values), min(values), max(values), deviation)
        cells = (Cell(format_fixed(value), value) for value in figures)
        rows.append([Cell(name), Cell(str(len(values)), len(values)), *cells])
    spreads = [Spread(name, values, number) for number, (name, values) in enumerate(zip(names, losses, strict=True))]
    svg = draw_spread("seeds-spread", spreads, "held-out loss, nats per predicted token")
    described = "; ".join(
        f"{name}: {min(values):.3f} to {max(values):.3f}" for name, values in zip(names, losses, strict=True)
    )
    return [
        Text("The runs of a line have the same recipe and budget; at most their seeds differ."),
        Picture("Held-out loss of each seed, with mean and range", svg, described),
        Table(columns, rows),
    ]


def _recipe_of(run: RunData) -> tuple[str, ...]:
    """All keys that change what is learned, apart from the seed."""
    specs = collect_keys(Config)
    names = [name for name, spec in specs.items() if spec.metadata["identifies"] and name != "seed"]
    return tuple(repr(get_value(run.config, name)) for name in (*names, "budget"))


def _group_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """Name groups of runs: what the names of each begin with, or else the first one and how many more."""
    starts = [labels[0] if len(labels) == 1 else _common_start(labels) for labels in groups]
    return [
        start if len(labels) == 1 or (start and starts.count(start) == 1) else f"{labels[0]} and {len(labels) - 1} more"
        for start, labels in zip(starts, groups, strict=True)
    ]


def _common_start(labels: Sequence[str]) -> str:
    """What some names begin with, without the number of a seed."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False))
    return "".join(letters[0] for letters in alike).rstrip(BETWEEN).removesuffix("seed").rstrip(BETWEEN)
