"""The loss of a run as a PNG, drawn from its files alone."""

import math
from io import BytesIO
from pathlib import Path

from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.run.metrics import read_metrics


def plot_loss(run: Path, unigram: float | None) -> Path:
    """Draw training and held-out loss over charged time into `loss.png` and return its path.

    Errors: CramError for metrics that no run has written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read_metrics(run / "metrics.jsonl")
    if any(not isinstance(record.get("charged_seconds"), int | float) for record in records):
        raise CramError(f"{run / 'metrics.jsonl'}: damaged or edited, a line has no charged_seconds. Remove the file.")
    train = [record for record in records if record["kind"] == "train"]
    held_out = [record for record in records if record["kind"] == "held_out"]
    marks = {
        "a spike, or a rollback": [record for record in records if record["kind"] == "fault"],
        "masks begin": [record for record in records if record["kind"] == "phase"],
    }
    masked = any("bits_per_masked_byte" in record for record in held_out)
    scale, unit = _time_unit(max((record["charged_seconds"] for record in records), default=0.0))
    last = held_out[-1].get("nats_per_token") if held_out else None
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(
        [r["charged_seconds"] / scale for r in train], [r.get("loss", math.nan) for r in train], linewidth=1.2,
        label="training (mask rate of the moment)" if masked else "training",
    )  # fmt: skip
    axes.plot(
        [r["charged_seconds"] / scale for r in held_out], [r.get("nats_per_token", math.nan) for r in held_out],
        "o", color="C3",
        label="held-out" + (f" ({last:.3f})" if last is not None else ""),
    )  # fmt: skip
    for color, (name, marked) in zip(("C1", "C2"), marks.items(), strict=True):
        for number, record in enumerate(marked):
            label = name if number == 0 else None
            axes.axvline(record["charged_seconds"] / scale, color=color, linewidth=0.8, linestyle=":", label=label)
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


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1.0, "s") if seconds < 300 else (60.0, "min") if seconds < 7200 else (3600.0, "h")
