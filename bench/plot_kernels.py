"""Plot the bandwidth of every provider over the width of a row, from results of `bench_kernels.py`.

    python -m bench.plot_kernels bench/results/kernels-*.json

Writes a PNG beside each file: a row of panels for each op, forward and backward, and the copy's bandwidth as a ceiling.
Ops that were measured at one width alone are drawn only if none has more. Of a width that was measured at several
numbers of rows the one with the most bytes is drawn.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.kernels import seconds_of

DIRECTIONS = ("forward", "backward")
# Okabe and Ito's colours, which all can tell apart; ours is the one that stands out.
COLORS = {
    "ours": "#D55E00", "eager": "#999999", "compile": "#0072B2", "liger": "#009E73", "quack": "#CC79A7",
}  # fmt: skip

Points = dict[str, list[tuple[int, float]]]


def series(cases: list[dict[str, Any]], direction: str) -> Points:
    """GB/s by width, of each provider and of the copy, from the cases of one op."""
    largest: dict[int, dict[str, Any]] = {}
    for case in cases:
        nbytes = case["bytes"].get(direction)
        if nbytes and nbytes > largest.get(case["width"], {"bytes": {direction: 0}})["bytes"][direction]:
            largest[case["width"]] = case
    points: Points = {}
    for width, case in sorted(largest.items()):
        for name, result in case["providers"].items():
            seconds = seconds_of(result, direction)
            if seconds:
                points.setdefault(name, []).append((width, case["bytes"][direction] / seconds / 1e9))
        points.setdefault("copy", []).append((width, case["copy"][direction] / 1e9))
    return points


def by_op(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Cases of the ops that have a bandwidth, by op and dtype, at several widths if there are any."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in results["cases"]:
        if any(case["bytes"].values()):
            groups.setdefault(f"{case['op']} {case['dtype']}", []).append(case)
    wide = {title: cases for title, cases in groups.items() if len({case["width"] for case in cases}) > 1}
    return wide or groups


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw one results file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups = by_op(results)
    if not groups:
        raise SystemExit(f"{path.with_suffix('.json')}: no case there has a bandwidth")
    figure, axes = plt.subplots(
        len(groups), 2, figsize=(11, 1 + 2.6 * len(groups)), squeeze=False, layout="constrained"
    )
    lines: dict[str, Any] = {}
    for row, (title, cases) in zip(axes, groups.items(), strict=True):
        for axis, direction in zip(row, DIRECTIONS, strict=True):
            lines |= draw_panel(axis, f"{title}, {direction}", series(cases, direction))
    machine = results["machine"]
    where = f"{machine['device']}, torch {machine['versions']['torch']}"
    figure.suptitle(f"{where}, commit {machine['commit']}, {machine['date'][:10]}")
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=len(lines))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_panel(axis: Any, title: str, points: Points) -> dict[str, Any]:
    """Draw one op and direction; returns the lines by what they are called."""
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
        if not ticks or width > 1.3 * ticks[-1]:  # closer ones would be written over each other
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
    """Plot each file named."""
    if not words:
        raise SystemExit("say which results: python -m bench.plot_kernels bench/results/kernels-cuda.json")
    for word in words:
        path = Path(word)
        draw(json.loads(path.read_text()), path.with_suffix(".png"))
        print(path.with_suffix(".png"))


if __name__ == "__main__":
    main(sys.argv[1:])
