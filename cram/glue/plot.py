"""Draw the scores as bars, beside published scores and controls."""

from io import BytesIO
from pathlib import Path
from typing import Any

from cram.files.atomic import write_atomic
from cram.glue.tasks import NINE, PUBLISHED

PUBLISHED_COLOURS = {"BERT-base": "0.35", "crammed": "C1", "crammed v2, best of 5": "C2"}  # rows of `PUBLISHED`
GROUP_WIDTH = 0.8  # of the bars of one score, where the distance between two scores is 1


def plot_scores(path: Path, results: dict[str, Any], title: str) -> Path:
    """Draw the scores, with the least and largest seed as whiskers, as a PNG.

    Args:
        results: as glue.json holds them.

    Returns:
        The path.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scores = results["scores"]
    names = [*(name for name in NINE if name in scores), *(name for name in scores if name not in NINE)]
    ticks = [*names, "mean"] if results["mean"] is not None else names
    groups = _bar_groups(results)
    figure, axes = pyplot.subplots(figsize=(7 + 0.5 * len(ticks), 5), layout="constrained")
    width = GROUP_WIDTH / len(groups)
    shifts = [(number - (len(groups) - 1) / 2) * width for number in range(len(groups))]
    for shift, (label, (values, colour)) in zip(shifts, groups.items(), strict=True):
        places = [index + shift for index in range(len(ticks))]
        axes.bar(places, [values.get(name) or 0.0 for name in ticks], width, label=label, color=colour)
    for index, name in enumerate(names):
        median = scores[name]["median"]
        error = [[median - scores[name]["least"]], [scores[name]["largest"] - median]]
        axes.errorbar(index + shifts[0], median, error, color="black", capsize=2, linewidth=1)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set(ylabel="dev score, %")
    axes.set_title(title, fontsize="medium", loc="left", wrap=True)
    axes.grid(axis="y", alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())
    return path


def _bar_groups(results: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """The bars side by side at each score, ours first: by label the scores by name, and a colour."""
    medians = {name: figures["median"] for name, figures in results["scores"].items()} | {"mean": results["mean"]}
    groups = {"this model, median": (medians, "C0")}
    groups |= {row: (PUBLISHED[row], colour) for row, colour in PUBLISHED_COLOURS.items()}
    if results["untrained"]:
        groups["untrained"] = (results["untrained"], "0.7")
    return groups | {"majority class": (results["majority"], "0.88")}
