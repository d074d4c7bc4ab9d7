"""Print the results: a table of the scores, and lines on protocol, rules, submission and models."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cram.glue.tasks import NINE, PUBLISHED, TASKS

PUBLISHED_COLUMNS = ("BERT-base", "crammed", "crammed v2, best of 5")
PLAIN_WIDTH = 160  # columns of the table where the output is not a terminal


def print_results(results: dict[str, Any], folder: Path, title: str, left_out: Iterable[str]) -> None:
    """Print the results.

    Args:
        results: as glue.json holds them.
        folder: where they were written.
        title: of the table.
        left_out: for each task without data, a line that names what is missing.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(results_table(results, title))
    for line in summary_lines(results, left_out):
        print(line)
    print(f"files       {folder}/glue.json, glue/glue.png, glue/submission.zip, glue/predictions/")


def results_table(results: dict[str, Any], title: str) -> Table:
    """Each score with median, mean, spread and every seed, beside controls and published scores."""
    table = Table(title=title, title_justify="left")
    controls = ["majority", *(["untrained"] if results["untrained"] else [])]
    for heading in ("score", "metric"):
        table.add_column(heading, justify="left")
    for heading in ("median", "mean", "spread", "seeds", *controls, *PUBLISHED_COLUMNS):
        table.add_column(heading, justify="right")
    for name in [*NINE, *(name for name in results["scores"] if name not in NINE)]:
        if name in results["scores"]:
            table.add_row(*_score_cells(name, results, controls))
    table.add_section()
    table.add_row(*_mean_cells(results, controls))
    return table


def _score_cells(name: str, results: dict[str, Any], controls: Iterable[str]) -> list[str]:
    figures = results["scores"][name]
    beside = "".join(f" ({metric} {value:.1f})" for metric, value in figures["beside"].items())
    not_finite = f" ({figures['not_finite']} not finite)" if figures["not_finite"] else ""
    return [
        name,
        figures["metric"],
        _format(figures["median"]) + beside + not_finite,
        _format(figures["mean"]),
        f"{figures['least']:.1f}-{figures['largest']:.1f}",
        _format_all(figures["seeds"].values()),
        *(_format(results[control].get(name)) for control in controls),
        *(_format(PUBLISHED[row].get(name)) for row in PUBLISHED_COLUMNS),
    ]


def _mean_cells(results: dict[str, Any], controls: Iterable[str]) -> list[str]:
    means = list(results["mean_of_seeds"].values())
    return [
        "mean of nine",
        "",
        _format(results["mean"]),
        _format(statistics.fmean(means) if means else None),
        f"{min(means):.1f}-{max(means):.1f}" if means else "",
        _format_all(means),
        *(_format(results[control]["mean"]) for control in controls),
        *(_format(PUBLISHED[row]["mean"]) for row in PUBLISHED_COLUMNS),
    ]


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _format_all(values: Iterable[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values)


def summary_lines(results: dict[str, Any], left_out: Iterable[str]) -> list[str]:
    """The lines under the table."""
    missing = results["missing"]
    return [
        *([f"mean        none: {', '.join(missing)} of the nine scores were not run"] if missing else []),
        f"protocol    {_protocol_text(results['protocol'])}",
        f"rules       {_rules_text(results['rules'])}",
        f"differs     {'; '.join(results['protocol']['differences'])}",
        f"published   crammed v2, A6000: mean {PUBLISHED['crammed v2']['mean']}",
        f"submission  {_submission_text(results['submission'])}",
        *(f"model       {_model_text(task, results)}" for task in results["models"]),
        *(f"left out    {text}" for text in left_out),
    ]


def _protocol_text(protocol: dict[str, Any]) -> str:
    departures = protocol["departures"]
    return f"{protocol['name']}, " + (f"NOT as published: {'; '.join(departures)}" if departures else "as published")


def _rules_text(rules: Iterable[dict[str, Any]]) -> str:
    broken = [f"{line['rule']} ({line['found']})" for line in rules if not line["passed"]]
    return f"not kept: {', '.join(broken)}" if broken else "all kept"


def _submission_text(submission: dict[str, Any]) -> str:
    filled, wrong_counts = submission["majority_class"], submission["wrong_counts"]
    return "".join(
        (
            submission["path"],
            f"; the majority class, not predictions, for {', '.join(filled)}" if filled else "",
            f"; not for handing in: {', '.join(wrong_counts)}" if wrong_counts else "",
        )
    )


def _model_text(task: str, results: dict[str, Any]) -> str:
    """Folder and seed of a saved model, with its score where that is not the median."""
    model, figures = results["models"][task], results["scores"][TASKS[task].subsets[0].name]
    score, median = model["score"], figures["median"]
    beside = "" if score == median else f", {figures['metric']} {score:.1f}, the median is {median:.1f}"
    return f"{model['path']} (seed {model['seed']}{beside})"


def probe_lines(results: dict[str, Any], folder: Path, left_out: Iterable[str]) -> list[str]:
    """The lines of the frozen probe: one for each score, then what is not as published, and the file.

    Args:
        results: as probe.json holds them.
        folder: where they were written.
        left_out: for each task without data, a line that names what is missing.
    """
    lines = [f"frozen probe of {results['run']}, {results['pooling']} pooling, dev scores"]
    for task, subsets in results["scores"].items():
        for name, scores in subsets.items():
            figures = ", ".join(f"{metric} {value:.1f}" for metric, value in scores.items())
            controls = [f"majority {_format_first(results['majority'][task][name])}"]
            if results["untrained"]:
                controls.append(f"random weights {_format_first(results['untrained'][task][name])}")
            lines.append(f"{name:<11} {figures} ({', '.join(controls)}), {results['rows'][task]:,} training rows")
    lines += [f"remark      {text}" for text in results["remarks"]]
    lines += [f"left out    {text}" for text in left_out]
    return [*lines, f"files       {folder}/probe.json"]


def _format_first(scores: dict[str, float]) -> str:
    return f"{next(iter(scores.values())):.1f}"
