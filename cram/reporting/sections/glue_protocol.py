"""How GLUE scores were made: protocol, rules, learning rates, every fine-tuning, and the frozen probe."""

from decimal import Decimal

from cram.data.inspect.figures import printable
from cram.reporting.page.blocks import Block, Cell, Column, Facts, Table, Text
from cram.reporting.reading.glue import Conclusions, FrozenProbe, GlueData, Scores
from cram.reporting.sections.formats import count, format_fixed, format_seconds


def protocol_title(conclusions: Conclusions | None) -> str:
    """Whether the fine-tunings were made as published."""
    if conclusions is None:
        return "How it is fine-tuned"
    departures = len(conclusions.departures)
    return f"Not as published: {count(departures, 'departure')}" if departures else "Fine-tuned as published"


def protocol_blocks(glue: GlueData) -> list[Block]:
    """Settings, departures, rules, learning rates and the submission."""
    settings = [
        (printable(name), printable(str(value)))
        for name, value in glue.settings.items()
        if value is not None and value != ""
    ]
    conclusions = glue.conclusions
    if conclusions is None:
        return [Facts(settings, "Settings of all fine-tunings")]
    blocks: list[Block] = []
    if conclusions.departures:
        blocks.append(Text(f"Not as published: {printable('; '.join(conclusions.departures))}.", "warning"))
    blocks.append(_rule_table(conclusions))
    if len(conclusions.learning_rates) > 1:
        blocks.append(_rate_table(glue, conclusions))
    settings += [("device", printable(conclusions.device))]
    blocks.append(Facts(settings, "Settings of all fine-tunings"))
    if conclusions.differences:
        blocks.append(
            Text(f"Our fine-tuning always differs a little: {printable('; '.join(conclusions.differences))}.", "note")
        )
    return [*blocks, *_submission(conclusions)]


def _rule_table(conclusions: Conclusions) -> Table:
    rows = [
        [
            Cell(printable(line.rule)),
            Cell("kept" if line.passed else "broken", tone="good" if line.passed else "bad"),
            Cell(printable(line.found)),
        ]
        for line in conclusions.rules
    ]
    columns = [Column("rule"), Column("result"), Column("found")]
    return Table(columns, rows, "Cramming's rules on fine-tuning", sortable=False)


def _rate_table(glue: GlueData, conclusions: Conclusions) -> Table:
    rows = [
        [
            Cell(write_rate(rate), rate),
            Cell(format_fixed(mean, 1), mean),
            Cell("yes" if rate == glue.learning_rate else ""),
        ]
        for rate, mean in conclusions.learning_rates.items()
    ]
    columns = [
        Column("learning rate", numeric=True),
        Column("mean of the medians", "%", numeric=True),
        Column("chosen"),
    ]
    note = "The rate was chosen on the dev sets, for all tasks together."
    return Table(columns, rows, "Learning rates that were tried", note)


def _submission(conclusions: Conclusions) -> list[Block]:
    blocks: list[Block] = []
    if conclusions.filled:
        filled = printable(", ".join(conclusions.filled))
        blocks.append(
            Text(f"{printable(conclusions.submission)} holds the majority class, not predictions, for {filled}.")
        )
    if conclusions.wrong_counts:
        counts = printable("; ".join(conclusions.wrong_counts))
        blocks.append(Text(f"{printable(conclusions.submission)} cannot be handed in: {counts}.", "warning"))
    return blocks


def fine_tuning_table(glue: GlueData) -> Table:
    """Every fine-tuning, of the checkpoint and of random weights, at every learning rate."""
    columns = [
        Column("task"),
        Column("began with"),
        Column("learning rate", numeric=True),
        Column("seed", numeric=True),
        Column("dev scores", "%"),
        Column("last loss", numeric=True),
        Column("training rows", numeric=True),
        Column("updates", numeric=True),
        Column("time", numeric=True),
    ]
    rows = [
        [
            Cell(printable(one.task)),
            Cell("random weights" if one.untrained else "the checkpoint", tone="note" if one.untrained else "plain"),
            Cell(write_rate(one.learning_rate), one.learning_rate),
            Cell(f"{one.seed}", one.seed),
            Cell(write_scores(one.scores)),
            Cell(format_fixed(one.loss), one.loss),
            Cell(f"{one.rows:,}", one.rows),
            Cell(f"{one.updates:,}", one.updates),
            Cell(format_seconds(one.seconds), one.seconds),
        ]
        for one in glue.fine_tunings
    ]
    return Table(columns, rows)


def write_scores(scores: Scores) -> str:
    """Scores of a task in words: `accuracy 83.9`, with the name of the score where there are several."""
    parts = []
    for name, metrics in scores.items():
        figures = ", ".join(
            f"{printable(metric)} {'not finite' if value is None else f'{value:.1f}'}"
            for metric, value in metrics.items()
        )
        parts.append(f"{printable(name)}: {figures}" if len(scores) > 1 else figures)
    return "; ".join(parts)


def probe_blocks(probe: FrozenProbe | None) -> list[Block]:
    """Scores of the frozen probe; none without one."""
    if probe is None:
        return []
    rows = [
        [
            Cell(printable(task)),
            Cell(write_scores(scores)),
            Cell(write_scores(probe.majority.get(task, {}))),
            Cell(write_scores(probe.untrained.get(task, {}))),
            Cell(f"{probe.rows[task]:,}" if task in probe.rows else "", probe.rows.get(task)),
        ]
        for task, scores in probe.scores.items()
    ]
    columns = [
        Column("task"),
        Column("probe", "%"),
        Column("majority class", "%"),
        Column("random weights", "%"),
        Column("training rows", numeric=True),
    ]
    blocks: list[Block] = [
        Text("Linear models on the hidden states of the checkpoint, which was not trained further. They have no seed."),
        Table(columns, rows, "Dev scores of the frozen probe"),
        Facts([(name, printable(value)) for name, value in probe.facts]),
    ]
    return [*blocks, *(Text(printable(remark), "note") for remark in probe.remarks)]


def _write_score(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1f}"


def write_rate(rate: float) -> str:
    """`4e-5`, with all its digits."""
    return f"{Decimal(repr(rate)):e}"
