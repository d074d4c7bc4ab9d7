"""The runs of a table of arms: their curves, the learning rates that were tried, and the state of each."""

from collections.abc import Sequence

from cram.reporting.page.blocks import Block, Cell, Chart, Column, Section, Series, Table, Text, Tone
from cram.reporting.page.thinning import thin
from cram.reporting.reading.tables import TableData, TableRun
from cram.reporting.sections.axes import Places, shared_axes
from cram.reporting.sections.formats import ABSENT, format_fixed, format_large, is_number
from cram.reporting.sections.results import page_of
from cram.reporting.sections.table_panels import group_by_panel, is_of_time

MOST_CURVES = 10  # of a chart that shows all seeds
MOST_POINTS = 4000  # of all curves of a chart
LEAST_EVALUATIONS = 3  # of a run whose held-out losses are a curve
STATUS_TONES: dict[str, Tone] = {"finished": "good", "failed": "bad", "running": "note"}


def curve_charts(table: TableData) -> list[Block]:
    """Draw the held-out loss of the runs of a table, each arm in a colour of its own.

    The training loss stands in its place where the runs were not evaluated during training. Where there are many runs,
    the first seed of each arm is drawn.
    """
    begun = [run for run in table.runs if run.rate is None and run.data is not None and run.data.of_kind("train")]
    arms = list(dict.fromkeys(run.arm for run in begun))
    charts: list[Block] = []
    drawn = 0
    for title, runs in group_by_panel(begun, table.baseline):
        chosen = runs if len(runs) <= MOST_CURVES else _first_seeds(runs)
        if chart := _panel_chart(title, chosen, arms):
            charts.append(chart)
            drawn += len(chosen)
    if charts and drawn < len(begun):
        charts.append(Text(f"The first seed of each arm is drawn, {drawn} of {len(begun)} runs.", "note"))
    return charts


def _first_seeds(runs: Sequence[TableRun]) -> list[TableRun]:
    """The run with the least seed of each arm."""
    firsts: dict[str, TableRun] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        firsts.setdefault(run.arm, run)
    return [run for run in runs if firsts[run.arm] is run]


def _panel_chart(title: str, runs: Sequence[TableRun], arms: Sequence[str]) -> Chart | None:
    """The curves of runs that compare; None where they share no axis or have no curve."""
    places = {run: Places(run.data) for run in runs if run.data is not None}
    evaluated = max(len(run.data.of_kind("held_out")) for run in places if run.data is not None)
    kind, value = ("held_out", "nats_per_token") if evaluated >= LEAST_EVALUATIONS else ("train", "loss")
    axes = shared_axes(list(places.values()), None if is_of_time(runs[0].budget) else "tokens")
    most = max(4, MOST_POINTS // len(runs))
    several = len({run.seed for run in runs}) > 1
    series = []
    for run, of_run in places.items():
        records = [] if run.data is None else run.data.of_kind(kind)
        heights = [record[value] if is_number(record.get(value)) else None for record in records]
        kept = thin(heights, most)
        at = [of_run.of(records[index]) for index in kept]
        series.append(
            Series(
                label=f"{run.arm}, seed {run.seed}" if several else run.arm,
                x={axis.name: [place[axis.name] for place in at] for axis in axes},
                y=[heights[index] for index in kept],
                style="both" if kind == "held_out" else "line",
                color=arms.index(run.arm),
            )
        )
    loss = "Held-out loss" if kind == "held_out" else "Training loss"
    if not axes or max(len(one.y) for one in series) < 2:
        return None
    return Chart(f"{loss}, {title}" if title else loss, axes, series, "nats per predicted token")


def rates_section(table: TableData) -> Section | None:
    """The learning rates that were tried, with the loss of each; None where none were."""
    trials = [run for run in table.runs if run.rate is not None]
    if not trials:
        return None
    rates = sorted({run.rate for run in trials if run.rate is not None})
    rows = []
    for arm in dict.fromkeys(run.arm for run in trials):
        losses = {run.rate: run.nats for run in trials if run.arm == arm}
        known = [loss for loss in losses.values() if loss is not None]
        best = min(known, default=None)
        cells = []
        for rate in rates:
            loss = losses.get(rate)
            tone: Tone = "good" if loss is not None and loss == best else "plain"
            cells.append(Cell(format_fixed(loss), loss, tone=tone))
        rows.append([Cell(arm), *cells])
    columns = [Column("arm"), *(Column(f"rate x {rate:g}", "nats", numeric=True) for rate in rates)]
    words = (
        "Each arm was trained with these multiples of the rate in its words, with half of the budget and one seed. The "
        "one with the lowest held-out loss counts."
    )
    edge = [row[0].text for row in rows if len(rates) > 1 and (row[1].tone == "good" or row[-1].tone == "good")]
    blocks: list[Block] = [Text(words), Table(columns, rows)]
    if edge:
        blocks.append(
            Text(f"At the edge of what was tried, so that another rate may be better: {', '.join(edge)}.", "note")
        )
    return Section("rates", "Learning rates tried", blocks)


def runs_section(table: TableData) -> Section | None:
    """All runs of a table with their state; None where there are none."""
    if not table.runs:
        return None
    rows = [_run_row(run) for run in table.runs]
    columns = [
        Column("run"),
        Column("arm"),
        Column("column"),
        Column("budget"),
        Column("rate factor", numeric=True),
        Column("seed", numeric=True),
        Column("state"),
        Column("held-out loss", "nats", numeric=True),
        Column("tokens", numeric=True),
    ]
    kept = [number for number in range(len(columns)) if any(row[number].text not in ("", ABSENT) for row in rows)]
    table_block = Table([columns[number] for number in kept], [[row[number] for number in kept] for row in rows])
    return Section("arm-runs", "Runs", [table_block])


def _run_row(run: TableRun) -> Sequence[Cell]:
    data = run.data
    state = "not begun" if data is None else data.status
    loss = None if data is None else run.nats or data.last("held_out").get("nats_per_token")
    tokens = None if data is None else data.figure("positions") or data.last("train").get("positions")
    return [
        Cell(run.folder, link="" if data is None else page_of(data, run.folder)),
        Cell(run.arm),
        Cell(run.column),
        Cell(run.budget),
        Cell(ABSENT if run.rate is None else f"{run.rate:g}", run.rate),
        Cell(str(run.seed), run.seed),
        Cell(state, tone=STATUS_TONES.get(state, "plain")),
        Cell(format_fixed(loss), loss),
        Cell(format_large(tokens), tokens),
    ]
