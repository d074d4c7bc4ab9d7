"""The picture of a plan: predicted loss over size of the model, and the sizes that published laws would choose."""

import math
from io import BytesIO
from pathlib import Path
from typing import Any

from cram.files.atomic import write_atomic
from cram.planner.laws import PF_DAY, published_optimum
from cram.planner.plan import Candidate, Plan
from cram.planner.plan_report import best_of_each_size
from cram.planner.size_rules import adjust_one_epoch

FAR = 3.0  # times the range of the candidates


def draw_plan(plan: Plan, unigram: float | None, path: Path) -> None:
    """Draw the predicted loss, or without a law the tokens per parameter, of the best candidate of each size.

    Args:
        plan: to draw.
        unigram: nats per token of the unigram baseline; None draws shares of it.
        path: of the png file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    draw_candidates(axes, plan, unigram)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())


def draw_candidates(axes: Any, plan: Plan, unigram: float | None) -> None:
    """Draw the candidates of a plan, in the colours of the settings.

    Args:
        axes: of matplotlib.
        plan: to draw.
        unigram: nats per token of the unigram baseline; None draws shares of it.
    """
    scale = unigram or 1.0
    heights = {candidate.size.parameters: _height(candidate, plan, scale) for candidate in _drawn(plan)}
    for measured, marker, label in ((True, "o", "timed here"), (False, "x", "pace from the cost model")):
        points = [(c.size.parameters, _height(c, plan, scale)) for c in _drawn(plan) if c.measured == measured]
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], marker, color="C0", label=label)
    chosen = plan.chosen
    axes.plot([chosen.size.parameters], [_height(chosen, plan, scale)], "*", markersize=16, color="C1", label="chosen")
    loss = "predicted loss, nats per token" if unigram else "predicted loss, share of the unigram baseline's"
    axes.set(xscale="log", xlabel="parameters", ylabel=loss if plan.by_law else "tokens per parameter")
    if not plan.by_law:
        axes.set(yscale="log")
    # References far away would leave no room for the candidates: the legend alone has them.
    least, most = min(heights) / FAR, max(heights) * FAR
    for name, size, style in _published(chosen):
        shown = size if least <= size <= most else math.nan
        axes.axvline(shown, color="0.5", linestyle=style, linewidth=1, label=f"{name}: {size / 1e6:.3g} M")
    if plan.by_law and unigram:
        shown = unigram if unigram < FAR * max(heights.values()) - (FAR - 1) * min(heights.values()) else math.nan
        axes.axhline(shown, color="0.6", linestyle="--", linewidth=1, label=f"unigram baseline ({unigram:.3f})")
    axes.grid(alpha=0.5)
    axes.legend(frameon=False)


def _drawn(plan: Plan) -> list[Candidate]:
    """The candidates that have a height: with a law those that it covers."""
    best = best_of_each_size(plan)
    return [candidate for candidate in best if candidate.updates and (not plan.by_law or candidate.relative_loss)]


def _height(candidate: Candidate, plan: Plan, scale: float) -> float:
    return candidate.predicted * scale if plan.by_law else candidate.tokens_per_parameter


def _published(chosen: Candidate) -> list[tuple[str, float, str]]:
    """What Kaplan's law and One Epoch's rule would choose for the compute of the choice: name, parameters, line."""
    operations = 6.0 * chosen.size.without_embedding * chosen.tokens
    product = float(chosen.size.parameters) * chosen.tokens
    return [
        ("Kaplan's optimum", published_optimum(operations / PF_DAY).parameters, "-."),
        ("One Epoch's rule", adjust_one_epoch(product).parameters, ":"),
    ]
