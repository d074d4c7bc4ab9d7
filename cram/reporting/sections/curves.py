"""The curves of runs: losses, learning rates, gradient norm and everything else that the metrics have."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from cram.reporting.page.blocks import Axis, Chart, Level, Mark, Number, Series
from cram.reporting.page.thinning import thin
from cram.reporting.reading.columns import Column
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.axes import Places, shared_axes
from cram.reporting.sections.events import run_marks
from cram.reporting.sections.formats import is_number

MOST_POINTS = 2400  # of the records of training that a page keeps
LOG_SPREAD = 20.0  # an axis whose values are closer together reads better without logarithms


@dataclass(frozen=True)
class Curve:
    """A value of the records of training that is drawn.

    Attributes:
        title: of its chart.
        y_label: what it is, with the unit.
        log_y: whether the vertical axis is logarithmic where the values are far apart.
        scale: what it is multiplied by.
        unit: what stands behind a number of it; empty for none.
    """

    title: str
    y_label: str
    log_y: bool = False
    scale: float = 1.0
    unit: str = ""


CURVES = {
    "lr": Curve("Learning rates by group of parameters", "learning rate"),
    "gradient_norm": Curve("Norm of the gradient before clipping", "norm", log_y=True),
    "tokens_per_second": Curve("Throughput", "tokens per second", unit="tokens per second"),
    "mfu": Curve("Model FLOP utilisation", "% of the peak", scale=100.0, unit="%"),
    "batch_tokens": Curve("Size of an update", "tokens", unit="tokens"),
    "noise_scale": Curve(
        "Gradient noise scale, an estimate of the critical batch", "tokens", log_y=True, unit="tokens"
    ),
    "mask_rate": Curve("Mask rate", "% of the tokens", scale=100.0, unit="% of the tokens"),
    "gpu_memory_bytes": Curve("Peak GPU memory", "GB", scale=1e-9, unit="GB"),
    "weight_decay": Curve("Weight decay of the matrices", "decay"),
    "momentum": Curve("Momentum", "momentum"),
    "curriculum_share": Curve("Share of the data that the curriculum has reached", "share"),
    "last_block_share": Curve("How often the last block is computed", "share of the updates"),
    "blocks": Curve("Depth of the model", "blocks"),
}
# Numbers of a record of training that are its place.
NOT_CURVES = {"step", "time", "progress", "positions", "flops", "charged_seconds"}


@dataclass(frozen=True)
class _Columns:
    """The records of training of a run by value, thinned."""

    label: str
    color: int
    places: Places
    x: dict[str, list[float]]
    y: dict[str, list[Number]]


def training_curves(
    runs: Sequence[RunData], labels: Sequence[str] | None = None, axis: str | None = None
) -> list[Chart]:
    """Draw the curves of one run, or of several to compare: losses first, then the other values of the metrics.

    Several runs have a colour each. A value that never changes is left out.

    Args:
        runs: one at least.
        labels: names of the runs in legends, all different; None for the names of their folders.
        axis: name of the axis that is shown first, such as `tokens`; None for `seconds`.

    Returns:
        Charts, whose points are thinned. None where the runs share no axis or have no records.
    """
    names = [run.name for run in runs] if labels is None else list(labels)
    places = [Places(run) for run in runs]
    axes = shared_axes(places, axis)
    most = MOST_POINTS // len(runs)
    columns = [
        _thin(run, name, color, own, most)
        for color, (run, name, own) in enumerate(zip(runs, names, places, strict=True))
    ]
    if len(runs) == 1:
        charts = [_loss_chart(runs[0], columns[0], axes), *_accuracy_charts(runs, columns, axes)]
    else:
        charts = [*_compared_losses(runs, columns, axes), *_accuracy_charts(runs, columns, axes)]
    marks = run_marks(runs[0], places[0]) if len(runs) == 1 else []
    charts += [_chart(curve, _value_series(columns, name), axes, marks) for name, curve in _curves(columns).items()]
    return [chart for chart in charts if axes and chart.series]


def constant_values(run: RunData) -> dict[str, float]:
    """The values of the records of training that never change and therefore have no curve, by name."""
    columns = {name: values for name, values in run.train.items() if name.split("/")[0] in CURVES}
    return {name: float(values[0]) for name, values in columns.items() if _is_constant(values)}


def _is_constant(values: Column) -> bool:
    return bool((values == values[0]).all())


def _thin(run: RunData, label: str, color: int, places: Places, most: int) -> _Columns:
    """Keep as many records of training as the extremes of any value need.

    All values keep the same points, so that a page holds their places once.
    """
    columns = {name: values for name, values in run.train.items() if name not in NOT_CURVES}
    moving = {name: values for name, values in columns.items() if name == "loss" or not _is_constant(values)}
    each = max(most // max(len(moving), 1), 5)
    kept = sorted({index for values in moving.values() for index in thin(values.tolist(), each)})
    return _Columns(
        label=label,
        color=color,
        places=places,
        x={name: values[kept].tolist() for name, values in places.train.items()},
        y={
            name: [None if isnan(value) else value for value in values[kept].tolist()]
            for name, values in moving.items()
        },
    )


def _loss_chart(run: RunData, columns: _Columns, axes: Sequence[Axis]) -> Chart:
    """Training and held-out loss of a run, with its baseline."""
    masked = any("bits_per_masked_byte" in record for record in run.of_kind("held_out"))
    label = "training, at the mask rate of the moment" if masked else "training"
    series = [*_series(columns, "loss", label), *_held_out_series(run, columns, "nats_per_token", "held-out", color=1)]
    unigram = run.figure("held_out", "unigram_nats_per_token")
    levels = [Level("unigram baseline", unigram)] if is_number(unigram) else []
    return Chart(
        title="Loss",
        axes=axes,
        series=series,
        y_label="nats per predicted token",
        marks=run_marks(run, columns.places),
        levels=levels,
    )


def _compared_losses(runs: Sequence[RunData], columns: Sequence[_Columns], axes: Sequence[Axis]) -> list[Chart]:
    """Held-out loss of all runs, and their training losses."""
    held_out = [_held_out_series(run, one, "nats_per_token") for run, one in zip(runs, columns, strict=True)]
    train = [_series(one, "loss", one.label) for one in columns]
    label = "nats per predicted token"
    return [
        Chart("Held-out loss", axes, [series for one in held_out for series in one], label),
        Chart("Training loss", axes, [series for one in train for series in one], label),
    ]


def _accuracy_charts(runs: Sequence[RunData], columns: Sequence[_Columns], axes: Sequence[Axis]) -> list[Chart]:
    alone = len(runs) == 1
    series = [
        one
        for run, own in zip(runs, columns, strict=True)
        for one in _held_out_series(run, own, "accuracy", "held-out" if alone else "", 100.0, 1 if alone else None)
    ]
    return [Chart("Held-out accuracy", axes, series, "% of the predicted tokens")]


def _held_out_series(
    run: RunData, columns: _Columns, name: str, label: str = "", scale: float = 1.0, color: int | None = None
) -> list[Series]:
    """A score of the held-out text as points; none where there is no such score."""
    records = [record for record in run.of_kind("held_out") if is_number(record.get(name))]
    if not records:
        return []
    places = [columns.places.of(record) for record in records]
    return [
        Series(
            label=label or columns.label,
            x={axis: [place[axis] for place in places] for axis in columns.places.names},
            y=[scale * record[name] for record in records],
            style="both",
            color=columns.color if color is None else color,
        )
    ]


def _series(columns: _Columns, name: str, label: str, color: int | None = None, scale: float = 1.0) -> list[Series]:
    """A value of the records of training as a line; none where it never changes or is never known."""
    values = columns.y.get(name, [])
    if not any(value is not None for value in values):
        return []
    heights = values if scale == 1.0 else [None if value is None else scale * value for value in values]
    return [Series(label=label, x=columns.x, y=heights, color=columns.color if color is None else color)]


def _curves(columns: Sequence[_Columns]) -> dict[str, Curve]:
    """The values that have a chart: those of `CURVES`, then others that later versions may write."""
    found = {name.split("/")[0] for one in columns for name in one.y} - {"loss"}
    known = {name: curve for name, curve in CURVES.items() if name in found}
    return known | {name: Curve(name.replace("_", " "), name) for name in sorted(found - set(known))}


def _value_series(columns: Sequence[_Columns], name: str) -> list[Series]:
    """The curves of a value: of one run each of its parts, of several runs the first part."""
    scale = CURVES[name].scale if name in CURVES else 1.0
    series = []
    for one in columns:
        parts = [part for part in one.y if part.split("/")[0] == name]
        if len(columns) == 1:
            for number, part in enumerate(parts):
                label = part.partition("/")[2] or (CURVES[name].y_label if name in CURVES else name)
                series += _series(one, part, label, color=number, scale=scale)
        elif parts:
            group = parts[0].partition("/")[2]
            series += _series(one, parts[0], f"{one.label}, {group}" if group else one.label, scale=scale)
    return series


def _chart(curve: Curve, series: Sequence[Series], axes: Sequence[Axis], marks: Sequence[Mark]) -> Chart:
    heights = [value for one in series for value in one.y if value is not None and value > 0]
    log_y = curve.log_y and bool(heights) and max(heights) > LOG_SPREAD * min(heights)
    return Chart(curve.title, axes, series, curve.y_label, marks=marks, log_y=log_y)
