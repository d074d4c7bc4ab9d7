"""The file of fits, fit.json: all fits to the runs of each kind, with the runs, so that they can be drawn from it."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.planner.curve_fit import BatchFit, PowerRegion
from cram.planner.fit import LawFit, LeftOut
from cram.planner.laws import SIZE, SIZE_DATA
from cram.planner.loss_law import CONSTANTS, LossLaw, parse_loss_law
from cram.planner.runs import Evaluation, FittedRun, RunKind

FITS_FILE = "fit.json"
BATCH_CONSTANTS = ("least_updates", "critical_batch", "least_tokens")
RUN_FIGURES = ("parameters", "tokens", "batch", "epochs", "nats", "unigram_nats")


@dataclass
class KindFits:
    """All fits to the runs of one kind.

    Attributes:
        kind: what the runs share.
        runs: the runs.
        laws: the fits of scaling laws.
        batches: the fits of the critical batch, at several losses.
        curve: the power-law part of the learning curve of the run with the most compute; None where there is none.
        loss_law: the law that plans predict with.
        left_out: the run with the most compute, predicted by the law that plans use, fitted to the others.
        missing: for each fit that the runs do not allow the reason.
    """

    kind: RunKind
    runs: list[FittedRun]
    laws: list[LawFit] = field(default_factory=list)
    batches: list[BatchFit] = field(default_factory=list)
    curve: PowerRegion | None = None
    loss_law: LossLaw | None = None
    left_out: LeftOut | None = None
    missing: dict[str, CramError] = field(default_factory=dict)


def write_fits(folder: Path, fits: Sequence[KindFits]) -> None:
    """Write fit.json into a folder: a list with a mapping for each kind of runs, named as the fields of `KindFits`."""
    write_json(folder / FITS_FILE, [_to_plain(kind_fits) for kind_fits in fits])


def _to_plain(fits: KindFits) -> dict[str, Any]:
    content = asdict(fits)
    for run in content["runs"]:
        del run["kind"], run["path"]  # the same for all runs, and where the folder lay
    content["missing"] = {law: str(error) for law, error in fits.missing.items()}
    return content


def read_fits(path: Path) -> list[KindFits]:
    """Read a fit.json.

    Raises:
        CramError: the file is damaged, or of a version that did not keep the runs.
    """
    content = read_json(path)
    try:
        return [_to_fits(mapping, path.parent) for mapping in content]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CramError(
            f"{path}: damaged, or written by another version. Make it again with python -m cram.plan fit={path.parent}."
        ) from None


def _to_fits(content: Mapping[str, Any], folder: Path) -> KindFits:
    kind = RunKind(**content["kind"])
    law, curve, left_out = content["loss_law"], content["curve"], content["left_out"]
    return KindFits(
        kind=kind,
        runs=[read_plain_run(run, kind, folder) for run in content["runs"]],
        laws=[_to_law(fit) for fit in content["laws"]],
        batches=[_to_batches(fit) for fit in content["batches"]],
        curve=None if curve is None else PowerRegion(**curve | {"interval": _pair(curve["interval"])}),
        loss_law=None if law is None else _with_intervals(parse_loss_law(law)),
        left_out=None if left_out is None else _to_left_out(left_out),
        missing={name: CramError(str(reason)) for name, reason in content["missing"].items()},
    )


def read_plain_run(content: Mapping[str, Any], kind: RunKind, folder: Path) -> FittedRun:
    """Make a run of its JSON form, which holds the fields of `FittedRun` without `kind` and `path`.

    A figure that is missing or is not a number is a KeyError or a TypeError.
    """
    figures = {name: _number(content[name]) for name in RUN_FIGURES}
    points = tuple(Evaluation(_number(point["tokens"]), _number(point["nats"])) for point in content["curve"])
    name = str(content["name"])
    return FittedRun(name=name, kind=kind, curve=points, path=folder / name, **figures)


def _with_intervals(law: LossLaw) -> LossLaw:
    if not set(CONSTANTS) <= law.intervals.keys():
        raise KeyError(law.intervals.keys())
    return law


def _to_law(content: Mapping[str, Any]) -> LawFit:
    names = tuple((SIZE_DATA if content["law"] == "L(N, D)" else SIZE).__dict__)
    return LawFit(
        law=str(content["law"]),
        what=str(content["what"]),
        constants=_numbers(content["constants"], names),
        intervals=_pairs(content["intervals"], names),
        published=_numbers(content["published"], names),
        residual=_number(content["residual"]),
        runs=int(content["runs"]),
        left_out=content["left_out"] and _to_left_out(content["left_out"]),
        doubts=tuple(str(doubt) for doubt in content["doubts"]),
    )


def _to_batches(content: Mapping[str, Any]) -> BatchFit:
    return BatchFit(
        nats=_number(content["nats"]),
        constants=_numbers(content["constants"], BATCH_CONSTANTS),
        intervals=_pairs(content["intervals"], BATCH_CONSTANTS),
        batches=tuple(_number(value) for value in content["batches"]),
        updates=tuple(_number(value) for value in content["updates"]),
        residual=_number(content["residual"]),
        doubts=tuple(str(doubt) for doubt in content["doubts"]),
    )


def _to_left_out(content: Mapping[str, Any]) -> LeftOut:
    return LeftOut(str(content["name"]), _number(content["observed"]), _number(content["predicted"]))


def _number(value: Any) -> float:
    """A number of JSON; null stands for one that is not finite."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        raise TypeError(value)
    return value


def _numbers(mapping: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    return {name: _number(mapping[name]) for name in names}


def _pair(ends: Any) -> tuple[float, float]:
    low, high = ends
    return _number(low), _number(high)


def _pairs(mapping: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    return {name: _pair(mapping[name]) for name in names}
