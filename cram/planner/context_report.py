"""The loss by the length of the context: what a decoder gains from more context, beside an LSTM.

Source: arXiv:2001.08361 figure 7, where LSTMs do as well as transformers early in the context and worse later.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from cram.files.atomic import write_atomic
from cram.planner.runs import SAME, FittedRun
from cram.run.checksums import read_receipt

PICTURE = "context.png"
LINES = ("-", ":", "--", "-.")


def report_context(folder: Path, runs: Sequence[FittedRun]) -> None:
    """Print the loss by the length of the context, and draw it into context.png.

    Of each model kind the runs with the most tokens count, without those that repeat their data.

    Args:
        folder: for the picture.
        runs: finished runs, of causal models or others.
    """
    once = [run for run in runs if not run.repeats]
    most = {run.kind: max(other.tokens for other in once if other.kind == run.kind) for run in once}
    longest = [run for run in once if run.tokens > most[run.kind] / SAME]
    losses = {run: read_receipt(run.path)["held_out"].get("by_position") for run in longest}
    causal = {run: parts for run, parts in losses.items() if parts}
    if not causal:
        return
    ordered = sorted(causal, key=lambda run: (run.kind.model, run.parameters))
    for run in ordered:
        print(_describe(run, causal[run]))
    _plot(folder / PICTURE, {run: causal[run] for run in ordered})
    print(f"{folder}: {PICTURE}")


def _describe(run: FittedRun, parts: list[dict[str, Any]]) -> str:
    figures = ", ".join(f"{_name(part)} {part['nats_per_token']:.3f}" for part in parts)
    return (
        f"{run.name}, {run.kind.model} of {run.parameters:,.0f} parameters, {run.tokens:,.0f} tokens; "
        f"nats by tokens of context: {figures}"
    )


def _name(part: dict[str, Any]) -> str:
    return f"{part['least']}" if part["least"] == part["most"] else f"{part['least']}-{part['most']}"


def _plot(path: Path, losses: dict[FittedRun, list[dict[str, Any]]]) -> None:
    """Draw a line for each run: its color is that of its size, its style that of its kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = list(dict.fromkeys(run.kind.model for run in losses))
    places = {run: [other for other in losses if other.kind == run.kind].index(run) for run in losses}
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for run, parts in losses.items():
        axes.plot(
            [(part["least"] * part["most"]) ** 0.5 for part in parts],
            [part["nats_per_token"] for part in parts],
            LINES[models.index(run.kind.model) % len(LINES)],
            color=f"C{places[run]}",
            marker="o",
            markersize=3,
            label=f"{run.kind.model}, {run.parameters:,.0f} parameters ({run.name})",
        )
    axes.set(xscale="log", xlabel="tokens of context", ylabel="held-out nats per predicted token")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())
