"""The report on a table of repeated data: speed-ups, learning curves, the best sizes, and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import read_json, write_atomic, write_json
from cram.planner.curve_fit import PowerRegion, find_power_region
from cram.planner.fit_file import read_plain_run
from cram.planner.repeated_data import EpochRun, Speedup, Window, find_speedups, find_windows
from cram.planner.runs import RunKind
from cram.planner.size_rules import ONE_EPOCH_WINDOW

PICTURE, FIGURES = "one_epoch.png", "one_epoch.json"
# E of arXiv:1906.06669, by epochs, for 18 to 128 million parameters.
PUBLISHED_SPEEDUPS = {10: "1.9 to 3.3", 5: "1.5 to 2.6"}


@dataclass(frozen=True)
class RepeatedData:
    """What runs on repeated data say.

    Attributes:
        runs: such as those of the table `one_epoch`.
        speedups: of one epoch over several.
        windows: tokens for which each size is the best.
        curves: the power-law part of the learning curve of each run of one epoch, by its name; None where it has none.
    """

    runs: Sequence[EpochRun]
    speedups: Sequence[Speedup]
    windows: Sequence[Window]
    curves: Mapping[str, PowerRegion | None]

    def describe(self) -> list[str]:
        """Describe in sentences what the runs say."""
        return [
            *(_describe_speedup(speedup) for speedup in self.speedups),
            *(_describe_window(window) for window in self.windows),
            *(_describe_region(name, region) for name, region in self.curves.items()),
        ]


def report_repeated_data(folder: Path, runs: Sequence[EpochRun]) -> None:
    """Print what runs on repeated data say, and write one_epoch.json and one_epoch.png.

    Args:
        folder: for the two files.
        runs: such as those of the table `one_epoch`.
    """
    curves = {run.run.name: find_power_region(run.run.curve) for run in runs if run.arm == "S"}
    found = RepeatedData(runs, find_speedups(runs), find_windows(runs), curves)
    print(*found.describe(), sep="\n")
    content = {
        "runs": [_to_plain(run) for run in runs],
        "speedups": [asdict(speedup) for speedup in found.speedups],
        "windows": [asdict(window) for window in found.windows],
        "learning_curves": {name: region and asdict(region) for name, region in curves.items()},
    }
    write_json(folder / FIGURES, content)
    _plot(folder / PICTURE, runs)
    print(f"{folder}: {FIGURES}, {PICTURE}")


def _to_plain(run: EpochRun) -> dict[str, Any]:
    content = asdict(run)
    del content["run"]["path"]  # where the folder lay
    return content


def read_repeated_data(path: Path) -> RepeatedData:
    """Read a one_epoch.json.

    Raises:
        CramError: the file is damaged, or of a version that did not keep the runs.
    """
    content = read_json(path)
    try:
        return RepeatedData(
            runs=[_to_run(run, path.parent) for run in content["runs"]],
            speedups=[Speedup(**speedup) for speedup in content["speedups"]],
            windows=[Window(**window) for window in content["windows"]],
            curves={name: region and PowerRegion(**region) for name, region in content["learning_curves"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CramError(
            f"{path}: damaged, or written by another version. Make it again with python -m cram.plan fit={path.parent}."
        ) from None


def _to_run(content: Mapping[str, Any], folder: Path) -> EpochRun:
    run = read_plain_run(content["run"], RunKind(**content["run"]["kind"]), folder)
    return EpochRun(run, int(content["all_parameters"]), float(content["dropout"]), int(content["seed"]))


def _describe_speedup(speedup: Speedup) -> str:
    dropout = " with dropout" if speedup.dropout else ""
    begin = (
        f"E at {speedup.all_parameters:,} parameters, {speedup.epochs:.0f} epochs{dropout}: best {speedup.nats:.3f} "
        f"nats after {speedup.tokens_to_best:,.0f} tokens; "
    )
    if speedup.factor is None or speedup.interval is None or speedup.tokens_of_single is None:
        return begin + "one epoch does not reach it in its tokens."
    published = PUBLISHED_SPEEDUPS.get(round(speedup.epochs))
    compared = f"; published {published}" if published else ""
    low, high = speedup.interval
    return begin + (
        f"one epoch after {speedup.tokens_of_single:,.0f}: {speedup.factor:.2f} ({low:.2f} to {high:.2f}{compared})."
    )


def _describe_window(window: Window) -> str:
    low, high = (tokens / window.all_parameters for tokens in (window.first, window.last))
    least, most = ONE_EPOCH_WINDOW
    return (
        f"T/P at {window.all_parameters:,} parameters: the best size from {window.first:,.0f} to {window.last:,.0f} "
        f"tokens, {low:.2f} to {high:.2f} tokens a parameter (published {least} to {most})."
    )


def _describe_region(name: str, region: PowerRegion | None) -> str:
    if region is None:
        return f"learning curve of {name}: no part of it is a power law."
    low, high = region.interval
    return (
        f"learning curve of {name}: a power law of exponent {region.exponent:.3f} ({low:.3f} to {high:.3f}) from "
        f"{region.first:,.0f} to {region.last:,.0f} tokens."
    )


def draw_size(axes: Any, runs: Sequence[EpochRun], size: int) -> None:
    """Draw the held-out loss over tokens of the runs of one size, in the colours of the settings.

    Args:
        axes: of matplotlib.
        runs: of all sizes, so that an arm has the same colour for each.
        size: all parameters.
    """
    from matplotlib import ticker

    arms = sorted({run.arm for run in runs})
    for run in runs:
        if run.all_parameters == size:
            axes.plot(
                [point.tokens for point in run.run.curve],
                [point.nats for point in run.run.curve],
                ":" if run.dropout else "-",
                color=f"C{arms.index(run.arm)}",
                label=run.arm,
            )
    axes.set(xscale="log", xlabel="tokens", title=f"{size:,} parameters")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.5, which="both")


def _plot(path: Path, runs: Sequence[EpochRun]) -> None:
    """Draw the held-out loss of all runs over tokens, one panel for each size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = list_sizes(runs)
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(5 * len(sizes), 4.5), layout="constrained", sharey=True, squeeze=False
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        draw_size(axes, runs, size)
    panels[0][0].set_ylabel("held-out nats per predicted token")
    panels[0][0].legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    pyplot.close(figure)
    write_atomic(path, picture.getvalue())


def list_sizes(runs: Sequence[EpochRun]) -> list[int]:
    """List the sizes of runs, in parameters, the smallest first."""
    return sorted({run.all_parameters for run in runs})
