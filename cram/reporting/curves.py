"""The plot of a run's loss, drawn from its metrics.jsonl."""

import math
from io import BytesIO
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.run.metrics import read_metrics

Records = list[dict[str, Any]]


def plot_loss(run: Path, unigram: float | None) -> Path:
    """Draw training and held-out loss over charged time into `loss.png`.

    Args:
        run: the run folder.
        unigram: nats per token of the unigram baseline; None for no line.

    Returns:
        The path of the picture.

    Raises:
        CramError: for a metrics.jsonl that no run has written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = _read_records(run / "metrics.jsonl")
    scale, unit = _time_unit(max((record["charged_seconds"] for record in records), default=0.0))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    _draw_losses(axes, records, scale)
    _draw_events(axes, records, scale)
    if unigram is not None:
        axes.axhline(unigram, color="0.6", linestyle="--", linewidth=1, label=f"unigram baseline ({unigram:.3f})")
    axes.set(xlabel=f"time charged to the budget, {unit}", ylabel="nats per predicted token", title=run.name)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png")
    pyplot.close(figure)
    path = run / "loss.png"
    write_atomic(path, picture.getvalue())
    return path


def _read_records(path: Path) -> Records:
    records = read_metrics(path)
    if any(not isinstance(record.get("charged_seconds"), int | float) for record in records):
        raise CramError(f"{path}: damaged or edited, a line has no charged_seconds. Remove the file.")
    return records


def _of_kind(records: Records, kind: str) -> Records:
    return [record for record in records if record["kind"] == kind]


def _times(records: Records, scale: float) -> list[float]:
    return [record["charged_seconds"] / scale for record in records]


def _draw_losses(axes: Any, records: Records, scale: float) -> None:
    """Draw both losses; one that is not finite leaves a gap."""
    train, held_out = _of_kind(records, "train"), _of_kind(records, "held_out")
    masked = any("bits_per_masked_byte" in record for record in held_out)
    label = "training (mask rate of the moment)" if masked else "training"
    losses = [record.get("loss", math.nan) for record in train]
    axes.plot(_times(train, scale), losses, linewidth=1.2, label=label)
    last = held_out[-1].get("nats_per_token") if held_out else None
    label = "held-out" if last is None else f"held-out ({last:.3f})"
    losses = [record.get("nats_per_token", math.nan) for record in held_out]
    axes.plot(_times(held_out, scale), losses, "o", color="C3", label=label)


def _draw_events(axes: Any, records: Records, scale: float) -> None:
    """Draw a vertical line for each event; the first one of a kind stands in the legend."""
    for kind, label, color in (("fault", "a spike, or a rollback", "C1"), ("phase", "masks begin", "C2")):
        for number, time in enumerate(_times(_of_kind(records, kind), scale)):
            axes.axvline(time, color=color, linewidth=0.8, linestyle=":", label=label if number == 0 else None)


def _time_unit(seconds: float) -> tuple[float, str]:
    """The unit of the time axis: its seconds, and its name."""
    return (1.0, "s") if seconds < 300 else (60.0, "min") if seconds < 7200 else (3600.0, "h")
