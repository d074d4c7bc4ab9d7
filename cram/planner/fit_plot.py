"""The pictures of fits: loss over size, over data and over compute, with the fitted lines.

Each panel draws on axes that it is given, so that the file of `cram.plan fit=DIR` and the page of a report show the
same. Colours are those of the caller's settings: `C0` and on, and the colour of its text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cram.files.atomic import write_atomic
from cram.planner.curve_fit import BatchFit
from cram.planner.fit import LawFit, find_envelope
from cram.planner.laws import NAIVE_COMPUTE, PF_DAY, PowerLaw, SizeDataLaw, updates_for_batch
from cram.planner.runs import FittedRun, group_by_value, runs_of_usual_batch

COLORS = 8  # of the cycle of a page; that of matplotlib has ten


@dataclass(frozen=True)
class Panel:
    """One panel of the picture of fits.

    Attributes:
        name: of one word.
        title: says what is seen.
        draw: draws on axes of matplotlib.
    """

    name: str
    title: str
    draw: Callable[[Any], None]


def list_panels(
    runs: Sequence[FittedRun], laws: Sequence[LawFit], batches: Sequence[BatchFit] = ()
) -> tuple[Panel, ...]:
    """List the panels that runs of one kind and their fits have.

    Runs of the most common batch size are drawn, since the laws are fitted to them. The critical batch has a panel of
    its own, if it was fitted.
    """
    runs = runs_of_usual_batch(runs)
    fits = {fit.law: fit for fit in laws}
    panels = (
        Panel("sizes", "held-out loss over the size of the model", lambda axes: _draw_sizes(axes, runs, fits)),
        Panel("tokens", "held-out loss over the tokens of the data", lambda axes: _draw_tokens(axes, runs, fits)),
        Panel("compute", "held-out loss over compute", lambda axes: _draw_compute(axes, runs, fits)),
    )
    if not batches:
        return panels
    title = "updates to a loss over the size of an update"
    return (*panels, Panel("batches", title, lambda axes: _draw_batches(axes, batches)))


def plot_fits(
    folder: Path, runs: Sequence[FittedRun], laws: Sequence[LawFit], batches: Sequence[BatchFit] = ()
) -> Path:
    """Draw the runs of one kind, with the fits that there are.

    Args:
        folder: for the picture, `fit_MODEL_OBJECTIVE.png`.

    Returns:
        The path of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kind, panels = runs[0].kind, list_panels(runs, laws, batches)
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4.8), layout="constrained")
    for axes, panel in zip(all_axes, panels, strict=True):
        panel.draw(axes)
    # A source may hold $, which would begin a formula.
    title = f"{kind.model}, {kind.objective}, {kind.text}, vocabulary of {kind.vocab_size:,}"
    figure.suptitle(title, parse_math=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    pyplot.close(figure)
    path = folder / f"fit_{kind.model}_{re.sub(r'[^a-z0-9]+', '_', kind.objective.lower())}.png"
    write_atomic(path, picture.getvalue())
    return path


def _draw_sizes(axes: Any, runs: Sequence[FittedRun], fits: dict[str, LawFit]) -> None:
    """Draw loss over size, in a color for each token count."""
    groups = group_by_value(runs, lambda run: run.data_tokens)
    sizes = _spread([run.parameters for run in runs])
    joint = _joint_law(fits)
    for number, (tokens, group) in enumerate(groups):
        color = _color(number)
        axes.plot(
            [run.parameters for run in group],
            [run.least_nats for run in group],
            "o",
            color=color,
            label=f"{tokens:,.0f} tokens",
        )
        if joint:
            axes.plot(sizes, [joint.loss(size, tokens) for size in sizes], color=color, linewidth=1)
    _draw_power(axes, sizes, fits.get("L(N)"), "L(N)")
    _finish(axes, "parameters without the embedding")


def _draw_tokens(axes: Any, runs: Sequence[FittedRun], fits: dict[str, LawFit]) -> None:
    """Draw loss over tokens of data, in a color for each size."""
    groups = group_by_value(runs, lambda run: run.parameters)
    counts = _spread([run.data_tokens for run in runs])
    joint = _joint_law(fits)
    for number, (size, group) in enumerate(groups):
        color = _color(number)
        axes.plot(
            [run.data_tokens for run in group],
            [run.least_nats for run in group],
            "o",
            color=color,
            label=f"{size:,.0f} parameters",
        )
        if joint:
            axes.plot(counts, [joint.loss(size, tokens) for tokens in counts], color=color, linewidth=1)
    _draw_power(axes, counts, fits.get("L(D)"), "L(D)")
    _finish(axes, "tokens of data")


def _draw_compute(axes: Any, runs: Sequence[FittedRun], fits: dict[str, LawFit]) -> None:
    """Draw loss over compute in PF-days, the envelope, and the published slope through the middle of the envelope."""
    envelope = find_envelope(runs)
    axes.plot([run.compute / PF_DAY for run in runs], [run.least_nats for run in runs], "o", color="0.6", label="runs")
    computes = [run.compute / PF_DAY for run in envelope]
    axes.plot(computes, [run.least_nats for run in envelope], "o-", color="C0", linewidth=0.8, label="lowest so far")
    spread = _spread(computes)
    _draw_power(axes, spread, fits.get("L(C)"), "L(C)")
    middle = envelope[len(envelope) // 2]
    slope = [middle.least_nats * (middle.compute / PF_DAY / compute) ** NAIVE_COMPUTE.exponent for compute in spread]
    axes.plot(spread, slope, ":", color="C1", linewidth=1.5, label=f"published exponent {NAIVE_COMPUTE.exponent}")
    _finish(axes, "compute 6 N D, PF-days")


def _draw_batches(axes: Any, batches: Sequence[BatchFit]) -> None:
    """Draw updates over batch to reach each loss, with the fitted hyperbola and the critical batch."""
    for number, fit in enumerate(batches):
        color = _color(number)
        spread, least, critical = _spread(fit.batches), fit.constants["least_updates"], fit.constants["critical_batch"]
        axes.plot(fit.batches, fit.updates, "o", color=color, label=f"to {fit.nats:.2f} nats")
        axes.plot(spread, [updates_for_batch(least, batch, critical) for batch in spread], color=color, linewidth=1)
        axes.axvline(critical, color=color, linestyle=":", linewidth=1)
    _finish(axes, "tokens of an update (dotted: the critical batch)", "updates")


def _draw_power(axes: Any, x: np.ndarray, fit: LawFit | None, name: str) -> None:
    from matplotlib import rcParams

    if fit is not None:
        law = PowerLaw(**fit.constants)
        label = f"{name}, exponent {law.exponent:.3f}"
        axes.plot(x, [law.loss(value) for value in x], "--", color=rcParams["text.color"], linewidth=1, label=label)


def _joint_law(fits: dict[str, LawFit]) -> SizeDataLaw | None:
    return SizeDataLaw(**fits["L(N, D)"].constants) if "L(N, D)" in fits else None


def _spread(values: Sequence[float]) -> np.ndarray:
    """Points between the least and the largest value and a little beyond, evenly spaced in logarithms."""
    return np.geomspace(min(values) / 1.3, max(values) * 1.3, 60)


def _color(number: int) -> str:
    """A colour of the cycle of the settings, which the page replaces by those of its theme."""
    return f"C{number % COLORS}"


def _finish(axes: Any, label: str, y_label: str = "held-out nats per predicted token") -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, ScalarFormatter

    axes.set(xscale="log", yscale="log", xlabel=label, ylabel=y_label)
    if min(axes.get_xlim()) >= 1:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter() if np.ptp(np.log10(axes.get_ylim())) < 1 else NullFormatter())
    axes.grid(alpha=0.5, which="both")
    axes.legend(frameon=False, fontsize=8)
