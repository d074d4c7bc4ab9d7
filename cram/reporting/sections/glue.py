"""The sections on GLUE: scores over seeds beside controls and published ones, and how they were made."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from cram.data.inspect.figures import printable
from cram.errors import CramError
from cram.reporting.page.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Fold,
    Headline,
    Links,
    Section,
    Table,
    Text,
    Tone,
)
from cram.reporting.reading.glue import (
    PROBE,
    RESULTS,
    Conclusions,
    GlueData,
    has_results,
    read_glue,
)
from cram.reporting.sections.formats import count, format_fixed
from cram.reporting.sections.glue_picture import draw_scores
from cram.reporting.sections.glue_protocol import (
    fine_tuning_table,
    probe_blocks,
    protocol_blocks,
    protocol_title,
    write_rate,
)

NINE = 9  # scores make the published mean
MEAN = "mean"  # the name of the mean in rows of published scores


def glue_sections(glue: GlueData) -> list[Section]:
    """The sections of GLUE results."""
    title = f"GLUE of {printable(glue.conclusions.checkpoint if glue.conclusions else glue.name)}"
    sections = [
        Section("glue", title, [*_scores(glue), *_links(glue)]),
        Section("glue-protocol", protocol_title(glue.conclusions), protocol_blocks(glue)),
        Section("glue-fine-tunings", f"{count(len(glue.fine_tunings), 'fine-tuning')}", [fine_tuning_table(glue)]),
        Section("glue-probe", "The frozen probe", probe_blocks(glue.probe)),
        *(
            Section(f"glue-checkpoint-{number}", f"GLUE of the checkpoint {printable(other.name)}", _scores(other))
            for number, other in enumerate(glue.others, start=1)
        ),
    ]
    if not glue.fine_tunings:
        sections = [sections[0], *sections[3:]]
    return [section for section in sections if section.blocks]


def glue_blocks(folder: Path) -> list[Block]:
    """The GLUE results of a run as blocks for its page: none where it has no results.

    Damaged results do not keep the page of a run from being made: they are named instead.

    Args:
        folder: of the run.
    """
    if not has_results(folder):
        return []
    try:
        glue = read_glue(folder)
    except CramError as error:
        return [Text(str(error), "bad")]
    blocks = _scores(glue)
    if glue.fine_tunings:
        blocks.append(Fold(protocol_title(glue.conclusions), protocol_blocks(glue)))
        blocks.append(Fold(count(len(glue.fine_tunings), "fine-tuning"), [fine_tuning_table(glue)]))
    if glue.probe:
        blocks.append(Fold("The frozen probe", probe_blocks(glue.probe), opened=not glue.fine_tunings))
    blocks += [Fold(f"The checkpoint {printable(other.name)}", _scores(other)) for other in glue.others]
    return [*blocks, *_links(glue)]


def _scores(glue: GlueData) -> list[Block]:
    """Headline, tables and picture."""
    blocks: list[Block] = []
    if glue.conclusions is None and glue.fine_tunings:
        blocks.append(Text(_unfinished(glue), "warning"))
    if glue.scores:
        blocks += [_headline(glue), _score_table(glue), draw_scores(glue), _seed_table(glue)]
    return blocks


def _unfinished(glue: GlueData) -> str:
    gaps = "; ".join(
        f"{printable(task)} at {write_rate(rate)}: seed {', '.join(map(str, seeds))}"
        for task, rate, seeds in glue.missing_seeds()
    )
    return f"Not finished: {count(len(glue.fine_tunings), 'fine-tuning')} done. The same command goes on" + (
        f". Missing at least {gaps}." if gaps else "."
    )


def _headline(glue: GlueData) -> Headline:
    conclusions = glue.conclusions
    medians = {score.name: score.median for score in glue.scores}
    published = dict(conclusions.published) if conclusions else {}
    named = [*medians]
    if conclusions and conclusions.mean is not None:
        figures = [Figure("mean of nine", format_fixed(conclusions.mean, 1), "%", _spread(conclusions))]
        means = {name: row.get(MEAN) for name, row in published.items()}
    else:
        named = [name for name in medians if any(name in row for row in published.values())] or named
        mean = statistics.fmean(medians[name] for name in named)
        missing = NINE - len(named) if conclusions else 0
        detail = f"{missing} of the nine were not run" if missing > 0 else ""
        figures = [Figure(f"mean of {count(len(named), 'score')}", format_fixed(mean, 1), "%", detail)]
        means = {
            name: statistics.fmean(row[one] for one in named)
            for name, row in published.items()
            if all(one in row for one in named)
        }
    same = "published" if len(named) >= NINE else "published, on the same scores"
    figures += [Figure(printable(name), format_fixed(mean, 1), "%", same) for name, mean in means.items()]
    if conclusions:
        departures = conclusions.departures
        detail = f"departs in {count(len(departures), 'point')}" if departures else "as published"
        tone: Tone = "warning" if departures else "good"
        figures.append(Figure("protocol", printable(conclusions.protocol), "", detail, tone))
    return Headline(figures)


def _spread(conclusions: Conclusions) -> str:
    means = [*conclusions.mean_of_seeds.values()]
    return f"single seeds {min(means):.1f} to {max(means):.1f}" if means else ""


def _score_table(glue: GlueData) -> Table:
    """The medians beside published scores and controls."""
    conclusions, beside = glue.conclusions, dict[str, Mapping[str, float]]()
    majority: Mapping[str, float] = {}
    if conclusions:
        # A published row that has nothing but its mean would be an empty column.
        beside |= {name: row for name, row in conclusions.published.items() if len(row) > 1}
        beside |= {"untrained": conclusions.untrained} if conclusions.untrained else {}
        majority = beside["majority class"] = conclusions.majority
    columns = [
        Column("score"),
        Column("metric"),
        Column("median", numeric=True),
        *(Column(printable(name), numeric=True) for name in beside),
    ]
    poor = {score.name for score in glue.scores if score.median <= majority.get(score.name, -math.inf)}
    rows = [
        [
            Cell(printable(score.name)),
            Cell(printable(score.metric)),
            _number(score.median, "warning" if score.name in poor else "plain"),
            *(_number(row.get(score.name)) for row in beside.values()),
        ]
        for score in glue.scores
    ]
    if conclusions and conclusions.mean is not None:
        means = [_number(row.get(MEAN)) for row in beside.values()]
        rows.append([Cell("mean of nine"), Cell(""), _number(conclusions.mean), *means])
    named = ", ".join(printable(score.name) for score in glue.scores if score.name in poor)
    note = f"Not above the majority class: {named}." if poor else ""
    return Table(columns, rows, "Median dev scores beside published scores and controls, in percent", note)


def _seed_table(glue: GlueData) -> Table:
    """Every seed, and what was measured beside the published metric."""
    seeds = sorted({seed for score in glue.scores for seed in score.seeds})
    columns = [
        Column("score"),
        Column("mean", numeric=True),
        *(Column(f"seed {seed}", numeric=True) for seed in seeds),
        Column("other metrics"),
    ]
    rows = []
    for score in glue.scores:
        remarks = [f"{printable(metric)} {value:.1f}" for metric, value in score.beside.items()]
        remarks += [f"{count(score.not_finite, 'seed')} not finite, counted as 0"] * bool(score.not_finite)
        values = [_number(score.seeds.get(seed)) for seed in seeds]
        rows.append([Cell(printable(score.name)), _number(score.mean), *values, Cell(", ".join(remarks))])
    if glue.conclusions and (means := glue.conclusions.mean_of_seeds):
        values = [_number(means.get(seed)) for seed in seeds]
        rows.append([Cell("mean of nine"), _number(statistics.fmean(means.values())), *values, Cell("")])
    return Table(columns, rows, "Every seed, in percent, and medians of other metrics")


def _number(value: float | None, tone: Tone = "plain") -> Cell:
    return Cell(format_fixed(value, 1), value, tone)


def _links(glue: GlueData) -> list[Block]:
    files = [(RESULTS, "every fine-tuning"), (PROBE, "the frozen probe")]
    conclusions = glue.conclusions
    if conclusions:
        files = [
            *files,
            (conclusions.submission, "for gluebenchmark.com"),
            *((path, f"the model of {task}, seed {seed}") for task, (path, seed, _) in conclusions.models.items()),
            ("glue/predictions", "predictions on the dev and test sets"),
        ]
    links = [(path, path, printable(meaning)) for path, meaning in files if (glue.folder / path).exists()]
    return [Links([(printable(name), path, meaning) for name, path, meaning in links], "Files")] if links else []
