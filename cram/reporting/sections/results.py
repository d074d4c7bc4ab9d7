"""The results of several runs as a table, and how each of them is read from a run in whatever state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cram.reporting.page.blocks import Block, Cell, Column, Table
from cram.reporting.reading.runs import RunData, find_value
from cram.reporting.sections.comparable import losses_compare
from cram.reporting.sections.formats import (
    ABSENT,
    format_bytes,
    format_fixed,
    format_large,
    format_seconds,
    format_share,
    format_whole,
    is_number,
)

PAGE = "report.html"  # in the folder of a run
BITS = {"bits_per_byte": "bits per byte", "bits_per_masked_byte": "bits per masked byte"}


@dataclass(frozen=True)
class _Figure:
    """A column of the table of results.

    Attributes:
        column: its heading.
        value: of a run; None where it is missing.
        format: makes a text of the value.
        best: whether the least or the largest value is marked where losses compare; None for neither.
    """

    column: Column
    value: Callable[[RunData], Any]
    format: Callable[[Any], str]
    best: Callable[[list[float]], float] | None = None


def results_blocks(runs: Sequence[RunData], labels: Sequence[str]) -> list[Block]:
    """Show the figures of all runs in a table, and their GLUE scores in another. What no run has is left out.

    Args:
        runs: one at least.
        labels: their names, all different.
    """
    figures = [figure for figure in _figures() if any(figure.value(run) not in (None, "") for run in runs)]
    best, compare = {}, losses_compare(runs)
    for figure in figures:
        values = [value for run in runs if is_number(value := figure.value(run))]
        if figure.best and len(set(values)) > 1 and compare:
            best[figure.column.name] = figure.best(values)
    rows = [
        [
            Cell(label, link=page_of(run, str(run.folder))),
            *(_cell(figure, run, best.get(figure.column.name)) for figure in figures),
        ]
        for run, label in zip(runs, labels, strict=True)
    ]
    table = Table([Column("run"), *(figure.column for figure in figures)], rows, title="Results")
    return [table, *_glue_table(runs, labels)]


def _cell(figure: _Figure, run: RunData, best: float | None) -> Cell:
    value = figure.value(run)
    if value is None:
        return Cell(ABSENT)
    tone = "good" if best is not None and value == best else "plain"
    return Cell(figure.format(value), value, tone=tone)  # type: ignore[arg-type]


def _figures() -> list[_Figure]:
    """The columns of the table of results, in order."""

    def number(name: str, unit: str, value: Callable[[RunData], Any], form: Callable[[Any], str]) -> _Figure:
        return _Figure(Column(name, unit, numeric=True), value, form)

    def text(name: str, value: Callable[[RunData], Any]) -> _Figure:
        return _Figure(Column(name), value, str)

    return [
        _Figure(Column("held-out loss", "nats", True), partial(score, name="nats_per_token"), format_fixed, min),
        *(
            _Figure(Column(words, "", True), partial(score, name=name), format_fixed, min)
            for name, words in BITS.items()
        ),
        _Figure(Column("accuracy", "", True), partial(score, name="accuracy"), format_share, max),
        _Figure(Column("GLUE", "mean", True), _glue_mean, partial(format_fixed, digits=1), max),
        number("tokens", "", lambda run: _so_far(run, "positions"), format_large),
        number("updates", "", lambda run: _so_far(run, "updates", "step"), format_whole),
        number("time charged", "", _charged_seconds, format_seconds),
        number("cost", "", lambda run: run.cost, partial(format_fixed, digits=2)),
        number("speed", "tokens/s", lambda run: _so_far(run, "tokens_per_second"), format_whole),
        number("MFU", "", lambda run: _so_far(run, "mfu"), format_share),
        number("parameters", "", lambda run: run.figure("model", "parameters"), format_large),
        number("memory", "peak", _peak_memory, format_bytes),
        number("seed", "", lambda run: run.config.seed, str),
        text("budget", lambda run: run.config.budget),
        text("recipe", lambda run: run.config.recipe),
        text("status", lambda run: run.status),
        text("device", lambda run: run.environment.get("device_name")),
        text("commit", lambda run: run.environment.get("commit")),
    ]


def page_of(run: RunData, folder: str) -> str:
    """The page in the folder of a run, or the folder where it has none.

    Args:
        run: the run.
        folder: its path, as links start.
    """
    return f"{folder}/{PAGE}" if (run.folder / PAGE).is_file() else folder


def score(run: RunData, name: str) -> Any:
    """A score on the held-out set: that of the receipt, or before the run is finished that of the latest evaluation."""
    return run.figure("held_out", name) if run.receipt is not None else run.last("held_out").get(name)


def _so_far(run: RunData, name: str, in_record: str | None = None) -> Any:
    """A figure of the receipt, or before the run is finished that of its latest record of training."""
    return run.figure(name) if run.receipt is not None else run.last("train").get(in_record or name)


def _charged_seconds(run: RunData) -> Any:
    if run.receipt is None:
        return run.records[-1].get("charged_seconds")
    seconds = run.figure("time", "charged") or {}
    return sum(value for value in seconds.values() if is_number(value)) or None


def _peak_memory(run: RunData) -> Any:
    """The peak of the GPU's memory, or of the host's for a run on a CPU."""
    return run.figure("peak_memory_bytes", "gpu") or run.figure("peak_memory_bytes", "host")


def _glue_mean(run: RunData) -> Any:
    """The mean of the nine GLUE scores of a run, in percent."""
    mean = find_value(run.glue, "results", "mean")
    return mean if is_number(mean) else None


def _glue_table(runs: Sequence[RunData], labels: Sequence[str]) -> list[Table]:
    """The median GLUE scores of the runs that have some; nothing where none has."""
    scores = {label: find_value(run.glue, "results", "scores") for run, label in zip(runs, labels, strict=True)}
    named = {label: tasks for label, tasks in scores.items() if isinstance(tasks, dict) and tasks}
    if not named:
        return []
    tasks = list(dict.fromkeys(task for of_run in named.values() for task in of_run))
    rows = []
    for label, of_run in named.items():
        medians = [find_value(of_run, task, "median") for task in tasks]
        cells = [Cell(format_fixed(value, 1), value) for value in medians]
        rows.append([Cell(label), *cells])
    columns = [Column("run"), *(Column(task, "median", numeric=True) for task in tasks)]
    return [Table(columns, rows, title="GLUE scores of each task")]
