"""`python -m bench.plot_kernels`: plot the bandwidth of every provider over the width of a row."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kernel_table import mean_seconds
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError

ABOUT = """Plot the bandwidth of every provider over the width of a row, from results of bench.kernels.

    python -m bench.plot_kernels results=bench/results/kernels-cuda.json

Writes a PNG beside each file. It has a row of panels for each op, forward and backward, with the bandwidth of a copy as
the ceiling. Ops that were measured at only one width are left out, unless that holds for all of them. Where a width was
measured at several numbers of rows, the case with the most bytes is drawn."""

DIRECTIONS = ("forward", "backward")
# The colours of Okabe and Ito, which colour-blind readers can tell apart. Ours has the most striking one.
COLORS = {
    "ours": "#D55E00",
    "eager": "#999999",
    "compile": "#0072B2",
    "liger": "#009E73",
    "quack": "#CC79A7",
}

Points = dict[str, list[tuple[int, float]]]


@dataclass
class PlotKernelsConfig:
    """What `bench.plot_kernels` takes."""

    results: list[str] = key([], "files that bench.kernels wrote", path=True)


def collect_points(cases: list[dict[str, Any]], direction: str) -> Points:
    """Return GB/s by width, of each provider and of the copy, from the cases of one op."""
    largest: dict[int, dict[str, Any]] = {}
    for case in cases:
        nbytes = case["bytes"].get(direction)
        if nbytes and nbytes > largest.get(case["width"], {"bytes": {direction: 0}})["bytes"][direction]:
            largest[case["width"]] = case
    points: Points = {}
    for width, case in sorted(largest.items()):
        for name, result in case["providers"].items():
            seconds = mean_seconds(result, direction)
            if seconds:
                points.setdefault(name, []).append((width, case["bytes"][direction] / seconds / 1e9))
        points.setdefault("copy", []).append((width, case["copy"][direction] / 1e9))
    return points


def group_by_op(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the cases that have a bandwidth, by op and dtype; only ops of several widths, if there are any."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in results["cases"]:
        if any(case["bytes"].values()):
            groups.setdefault(f"{case['op']} {case['dtype']}", []).append(case)
    wide = {title: cases for title, cases in groups.items() if len({case["width"] for case in cases}) > 1}
    return wide or groups


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw one results file.

    Raises:
        CramError: where no case has a bandwidth.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups = group_by_op(results)
    if not groups:
        raise CramError(f"{path.with_suffix('.json')}: no case in it has a bandwidth.")
    figure, axes = plt.subplots(
        len(groups), 2, figsize=(11, 1 + 2.6 * len(groups)), squeeze=False, layout="constrained"
    )
    lines: dict[str, Any] = {}
    for row, (title, cases) in zip(axes, groups.items(), strict=True):
        for axis, direction in zip(row, DIRECTIONS, strict=True):
            lines |= draw_panel(axis, f"{title}, {direction}", collect_points(cases, direction))
    machine = results["machine"]
    where = f"{machine['device']}, torch {machine['versions']['torch']}"
    figure.suptitle(f"{where}, commit {machine['commit']}, {machine['date'][:10]}")
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=len(lines))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_panel(axis: Any, title: str, points: Points) -> dict[str, Any]:
    """Draw one op and direction, and return the lines by their labels."""
    lines = {}
    for name, line in points.items():
        widths, speeds = zip(*line, strict=True)
        if name == "copy":
            (lines["copy of as many bytes"],) = axis.plot(widths, speeds, "k--", linewidth=1, marker="_")
        else:
            front = 3 if name == "ours" else 2
            (lines[name],) = axis.plot(widths, speeds, "o-", markersize=4, color=COLORS.get(name), zorder=front)
    ticks: list[int] = []
    for width in sorted({width for line in points.values() for width, _ in line}):
        if not ticks or width > 1.3 * ticks[-1]:  # labels of closer ticks would overlap
            ticks.append(width)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{width:,}" for width in ticks], fontsize=8)
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("width of a row", fontsize=8)
    axis.set_ylabel("GB/s", fontsize=8)
    axis.grid(alpha=0.25)
    return lines


def main(words: list[str]) -> None:
    """Plot each file that the words name.

    Raises:
        CramError: no files are given.
    """
    config = read_words(PlotKernelsConfig, words)
    if not config.results:
        raise CramError("results= is missing. Give files of bench.kernels, such as bench/results/kernels-cuda.json.")
    for name in config.results:
        path = Path(name)
        draw(json.loads(path.read_text()), path.with_suffix(".png"))
        print(path.with_suffix(".png"))


if __name__ == "__main__":
    run_door(main, PlotKernelsConfig, ABOUT)
