"""The results for a person: a table, and bars beside the published rows."""

import statistics
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.table import Table

from cram.files.atomic import write_atomic
from cram.glue.tasks import NINE, PUBLISHED

ROWS = ("BERT-base", "crammed", "crammed v2, best of 5")


def table(results: dict[str, Any], title: str) -> Table:
    """Each score with median, mean, spread and every seed, beside controls and published rows."""
    grid = Table(title=title, title_justify="left")
    heads = ["score", "metric", "median", "mean", "spread", "seeds", "majority"]
    heads += ["untrained"] if results["untrained"] else []
    for head in [*heads, *ROWS]:
        grid.add_column(head, justify="left" if head in ("score", "metric") else "right")
    for name in [*NINE, *(name for name in results["scores"] if name not in NINE)]:
        if name in results["scores"]:
            grid.add_row(*_cells(name, results))
    controls = ["majority", *(["untrained"] if results["untrained"] else [])]
    grid.add_section()
    seeds = list(results["mean_of_seeds"].values())
    grid.add_row(
        "mean of nine", "", _number(results["mean"]), _number(statistics.fmean(seeds) if seeds else None),
        f"{min(seeds):.1f}-{max(seeds):.1f}" if seeds else "", " ".join(f"{value:.1f}" for value in seeds),
        *(_number(results[control]["mean"]) for control in controls),
        *(_number(PUBLISHED[row]["mean"]) for row in ROWS),
    )  # fmt: skip
    return grid


def _cells(name: str, results: dict[str, Any]) -> list[str]:
    found = results["scores"][name]
    beside = "".join(f" ({other} {value:.1f})" for other, value in found["beside"].items())
    not_finite = f" ({found['not_finite']} not finite)" if found["not_finite"] else ""
    cells = [
        name,
        found["metric"],
        _number(found["median"]) + beside + not_finite,
        _number(found["mean"]),
        f"{found['least']:.1f}-{found['largest']:.1f}",
        " ".join(f"{value:.1f}" for value in found["seeds"].values()),
        _number(results["majority"].get(name)),
    ]
    if results["untrained"]:
        cells.append(_number(results["untrained"].get(name)))
    return cells + [_number(PUBLISHED[row].get(name)) for row in ROWS]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def plot(path: Path, results: dict[str, Any], title: str) -> Path:
    """Draw scores as bars, least and largest seed as whiskers, beside published rows and controls; return `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [*(name for name in NINE if name in results["scores"])]
    names += [name for name in results["scores"] if name not in NINE]
    names += ["mean"] if results["mean"] is not None else []
    groups = _groups(results)
    figure, axes = pyplot.subplots(figsize=(7 + 0.5 * len(names), 5), layout="constrained")
    width = 0.8 / len(groups)
    for number, (label, (values, colour)) in enumerate(groups.items()):
        places = [index + (number - (len(groups) - 1) / 2) * width for index in range(len(names))]
        axes.bar(places, [values.get(name) or 0.0 for name in names], width, label=label, color=colour)
    for index, name in enumerate(names[: len(results["scores"])]):
        found = results["scores"][name]
        below, above = found["median"] - found["least"], found["largest"] - found["median"]
        place = index - (len(groups) - 1) / 2 * width
        axes.errorbar(place, found["median"], [[below], [above]], color="black", capsize=2, linewidth=1)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="dev score, %")
    axes.set_title(title, fontsize="medium", loc="left", wrap=True)
    axes.grid(axis="y", alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())
    return path


def _groups(results: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """What stands side by side: scores by name, and a colour."""
    ours = {name: found["median"] for name, found in results["scores"].items()} | {"mean": results["mean"]}
    groups = {"this model, median": (ours, "C0")}
    groups |= {row: (PUBLISHED[row], colour) for row, colour in zip(ROWS, ("0.35", "C1", "C2"), strict=True)}
    if results["untrained"]:
        groups["untrained"] = (results["untrained"], "0.7")
    return groups | {"majority class": (results["majority"], "0.88")}
