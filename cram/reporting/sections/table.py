"""The sections on a table of arms: points with their spread, ranks, published findings, rates, curves and runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from cram.evaluation.halves import HALVES
from cram.machine.different_devices import describe_different_devices
from cram.reporting.page.blocks import Block, Cell, Code, Column, Fold, Picture, Section, Table, Text, Tone
from cram.reporting.pictures.spread import Spread, draw_spread
from cram.reporting.reading.tables import ArmFigures, TableData
from cram.reporting.sections.comparable import losses_compare
from cram.reporting.sections.formats import (
    ABSENT,
    format_bytes,
    format_fixed,
    format_large,
    format_seconds,
    format_whole,
)
from cram.reporting.sections.scaling import scaling_sections
from cram.reporting.sections.table_panels import group_by_panel
from cram.reporting.sections.table_runs import curve_charts, rates_section, runs_section

# Colours of the palette by how an arm compares; the dashed line of the baseline says the same by the place.
COLORS = {"better": 2, "worse": 1, "not decided": 0, "": 7}
TONES: dict[str, Tone] = {"better": "good", "worse": "bad"}
AGREEMENT: dict[str, Tone] = {"yes": "good", "no": "warning"}


@dataclass(frozen=True)
class Panel:
    """Arms that are compared with each other: one column of the table, and one budget of each arm.

    Attributes:
        title: which column and budget; empty where the table has one of each.
        arms: the lowest mean first.
    """

    title: str
    arms: Sequence[ArmFigures]


def table_sections(table: TableData) -> list[Section]:
    """Show a table of arms, finished or not. Links start from the folder of the table."""
    panels = [
        Panel(title, sorted(arms, key=lambda arm: arm.mean))
        for title, arms in group_by_panel(table.arms, table.baseline)
    ]
    sections = [Section("arms", "Arms at equal budget", _arm_blocks(table, panels))] if panels or table.runs else []
    if published := _published(panels):
        sections.append(Section("published", "Published findings", published))
    if charts := curve_charts(table):
        sections.append(Section("arm-curves", "Curves of the arms", charts))
    sections += scaling_sections(table.fits, table.repeated_data)
    return [*sections, *(section for section in (rates_section(table), runs_section(table)) if section)]


def _arm_blocks(table: TableData, panels: Sequence[Panel]) -> list[Block]:
    blocks: list[Block] = [Text(table.about)] if table.about else []
    blocks += _notes(table)
    if panels:
        blocks.append(_legend(table))
    for number, panel in enumerate(panels):
        blocks.append(_picture(table, panel, f"arms-{number}"))
    blocks += [_figures(table, panel) for panel in panels]
    words = {arm.arm: " ".join(arm.words) for arm in table.arms}
    if any(words.values()):
        lines = [f"{arm}: {text or '(the words of the table alone)'}" for arm, text in words.items()]
        blocks.append(Fold("The words that make each arm", [Code("\n".join(lines))]))
    return blocks


def _notes(table: TableData) -> list[Text]:
    """What stands between the figures and a fair comparison."""
    notes = [] if table.baseline else _notes_without_results(table)
    unfinished = [run for run in table.runs if run.nats is None]
    if unfinished:
        done = len(table.runs) - len(unfinished)
        notes.append(
            Text(
                f"The table is not finished: {done} of {len(table.runs)} runs have ended with a usable model. The same "
                "command of cram.ablate trains the others.",
                "warning",
            )
        )
    if len({data for arm in table.arms for data in arm.data}) > 1:
        notes.append(
            Text("Not all arms were trained on the same rows, so their losses compare only roughly.", "warning")
        )
    if remark := describe_different_devices((arm.arm, arm.devices) for arm in table.arms):
        notes.append(Text(remark, "note"))
    if table.baseline and not any(arm.arm == table.baseline for arm in table.arms):
        notes.append(Text(f"The baseline, {table.baseline}, has no finished run yet.", "note"))
    return notes


def _notes_without_results(table: TableData) -> list[Text]:
    """What is told of a folder of runs that no table of cram.ablate may have planned."""
    runs = [run.data for run in table.runs if run.nats is not None and run.data is not None]
    if not runs:
        return []
    notes = [Text("There is no results.json, so each run is taken for an arm by the name of its folder.", "note")]
    if not losses_compare(runs):
        text = "The losses are not comparable: the objectives, vocabularies or held-out texts of the runs differ."
        notes.append(Text(text, "warning"))
    budgets = sorted({arm.budget for arm in table.arms})
    if len(budgets) > 1:
        notes.append(Text(f"The budgets differ: {', '.join(budgets)}.", "warning"))
    return notes


def _legend(table: TableData) -> Text:
    """What the points, lines and colours of the pictures are."""
    words = "Each point is a seed, and the bar is the mean of the seeds."
    if any(arm.arm == table.baseline for arm in table.arms):
        words += f" The dashed line is the mean of the baseline, {table.baseline}."
    colors = {"better": "green", "worse": "orange"}
    for compares, color in colors.items():
        if any(arm.compares == compares for arm in table.arms):
            words += f" In {color}: all seeds are {compares} than all of the baseline."
    return Text(words, "note")


def _picture(table: TableData, panel: Panel, name: str) -> Picture:
    spreads = [Spread(arm.arm, list(arm.nats.values()), COLORS.get(arm.compares, 0)) for arm in panel.arms]
    baseline = next((arm for arm in panel.arms if arm.arm == table.baseline), None)
    svg = draw_spread(
        name, spreads, "held-out loss, nats per predicted token", None if baseline is None else baseline.mean
    )
    described = "; ".join(f"{arm.arm} {arm.mean:.3f}" for arm in panel.arms)
    title = f"Held-out loss of each seed{f', {panel.title}' if panel.title else ''}"
    return Picture(title, svg, f"Means, the best first: {described}.")


def _figures(table: TableData, panel: Panel) -> Table:
    """All figures of the arms of a panel, the best first. Columns in which no arm has anything are left out."""
    columns = [
        Column("rank", numeric=True),
        Column("arm"),
        Column("held-out loss", "nats, mean", numeric=True),
        Column("least", "nats", numeric=True),
        Column("largest", "nats", numeric=True),
        Column("seeds", numeric=True),
        *(Column(f"{half} half", "nats", numeric=True) for half in HALVES),
        Column("over baseline", "nats", numeric=True),
        Column("compares"),
        Column("Cramming's rule", "nats", numeric=True),
        Column("rate factor", numeric=True),
        Column("speed", "tokens/s", numeric=True),
        Column("tokens", numeric=True),
        Column("rows read", numeric=True),
        Column("time charged", numeric=True),
        Column("of it updates", numeric=True),
        Column("peak memory", numeric=True),
        Column("updates left out", numeric=True),
        Column("budget"),
    ]
    rows = [_figures_row(table, rank, arm) for rank, arm in enumerate(panel.arms, 1)]
    kept = [number for number in range(len(columns)) if any(row[number].text not in ("", ABSENT) for row in rows)]
    title = f"Figures{f', {panel.title}' if panel.title else ''}"
    note = (
        "Better or worse: all seeds of an arm are on that side of all seeds of the baseline. Rates are chosen by the "
        "tuning half of the held-out text; where there is a judging half, arms are compared by it."
    )
    return Table(
        [columns[number] for number in kept],
        [[row[number] for number in kept] for row in rows],
        title=title,
        note=note if any(arm.compares for arm in panel.arms) else "",
    )


def _figures_row(table: TableData, rank: int, arm: ArmFigures) -> list[Cell]:
    losses = list(arm.nats.values())
    over = arm.over_baseline
    figures, charged = arm.figures, sum(arm.seconds.values()) or None
    updates = arm.seconds.get("updates")
    return [
        Cell(str(rank), rank),
        Cell(f"{arm.arm} (baseline)" if arm.arm == table.baseline else arm.arm, arm.arm),
        Cell(format_fixed(arm.mean), arm.mean, tone="good" if rank == 1 else "plain"),
        Cell(format_fixed(min(losses)), min(losses)),
        Cell(format_fixed(max(losses)), max(losses)),
        Cell(str(len(losses)), len(losses)),
        *(Cell(format_fixed(figures.get(half)), figures.get(half)) for half in HALVES),
        Cell(ABSENT if over is None else f"{over:+.3f}", over),
        Cell(arm.compares, tone=TONES.get(arm.compares, "plain")),
        Cell(format_fixed(figures.get("cramming_rule_nats")), figures.get("cramming_rule_nats")),
        Cell(ABSENT if arm.rate is None else f"{arm.rate:g}", arm.rate),
        Cell(format_whole(figures.get("tokens_per_second")), figures.get("tokens_per_second")),
        Cell(format_large(figures.get("tokens")), figures.get("tokens")),
        Cell(format_large(figures.get("rows_read")), figures.get("rows_read")),
        Cell(format_seconds(charged), charged),
        Cell(format_seconds(updates), updates),
        Cell(format_bytes(figures.get("peak_memory_bytes")), figures.get("peak_memory_bytes")),
        Cell(format_whole(figures.get("faults")), figures.get("faults")),
        Cell(arm.budget),
    ]


def _published(panels: Sequence[Panel]) -> list[Block]:
    """What was published about the arms, and what came here; nothing where nothing was published."""
    rows = [
        [
            Cell(arm.arm),
            Cell(panel.title),
            Cell(arm.published),
            Cell(arm.expected),
            Cell(arm.compares),
            Cell(ABSENT if arm.over_baseline is None else f"{arm.over_baseline:+.3f}", arm.over_baseline),
            Cell(arm.agrees, tone=AGREEMENT.get(arm.agrees, "plain")),
        ]
        for panel in panels
        for arm in panel.arms
        if arm.published or arm.expected
    ]
    if not rows:
        return []
    columns = [
        Column("arm"),
        Column("column and budget"),
        Column("published"),
        Column("expected"),
        Column("here"),
        Column("over baseline", "nats", numeric=True),
        Column("agrees"),
    ]
    kept = [number for number in range(len(columns)) if any(row[number].text for row in rows)]
    told = [row[-1].text for row in rows if row[-1].text]
    summary = f"{told.count('yes')} of {len(told)} comparisons agree with what was published. " if told else ""
    return [
        Text(f"{summary}The same is expected where the seeds should not decide."),
        Table([columns[number] for number in kept], [[row[number] for number in kept] for row in rows]),
    ]
