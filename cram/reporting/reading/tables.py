"""What a report knows of a table of arms: its figures, its runs, and the scaling laws that were fitted to them."""

import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.evaluation.halves import HALVES
from cram.files.atomic import read_json
from cram.machine.different_devices import devices_of_receipt
from cram.planner.fit_file import FITS_FILE, KindFits, read_fits
from cram.planner.repeated_data_report import FIGURES, RepeatedData, read_repeated_data
from cram.reporting.reading.runs import RunData, read_run
from cram.run.checksums import RECIPE

RESULTS = "results.json"
# Figures of an arm that are means over its receipts, and their names there.
RECEIPT_FIGURES = {"tokens_per_second": "tokens_per_second", "tokens": "positions", "rows_read": "rows_read"}
SEED_OF_NAME, RATE_OF_NAME = re.compile(r"(.+)-seed(\d+)"), re.compile(r"(.+)-rate(\d[\d.]*(?:e[+-]\d+)?)")


@dataclass(frozen=True)
class ArmFigures:
    """The figures of an arm with one budget and in one column of its table, over seeds.

    Attributes:
        arm: its name.
        column: of the table; empty where it has none.
        budget: as in a recipe.
        nats: held-out loss of each seed, nats per predicted token, by seed.
        over_baseline: mean difference to the baseline's over the seeds that both have; None if unknown.
        compares: `better`, `worse` or `not decided` beside the baseline; empty if unknown.
        expected: how it compares by what was published; empty if nothing was.
        published: what was published about it; empty if nothing was.
        agrees: `yes` or `no`, whether it compares as expected; empty if unknown.
        words: that make the arm.
        rate: what the chosen learning rate multiplies that of the words by; None where it was not chosen.
        figures: further figures by name, means over seeds; one that is missing is None.
        seconds: charged to each account, means over seeds.
        data: hashes of the rows that it was trained on.
        devices: that it was trained on.
    """

    arm: str
    column: str
    budget: str
    nats: Mapping[int, float]
    over_baseline: float | None = None
    compares: str = ""
    expected: str = ""
    published: str = ""
    agrees: str = ""
    words: Sequence[str] = ()
    rate: float | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    data: Sequence[str] = ()
    devices: Sequence[str] = ()

    @property
    def mean(self) -> float:
        """The mean held-out loss."""
        return statistics.fmean(self.nats.values())


@dataclass(frozen=True, eq=False)
class TableRun:
    """A run that a table plans or has.

    Attributes:
        folder: its name, inside the folder of the table.
        arm: the name of the arm.
        column: of the table; empty where it has none.
        budget: as in a recipe.
        seed: its seed.
        rate: of a run that tries a learning rate, what it multiplies that of the words by; else None.
        data: the run; None where it has not begun, or its folder is gone.
    """

    folder: str
    arm: str
    column: str
    budget: str
    seed: int
    rate: float | None
    data: RunData | None

    @property
    def nats(self) -> float | None:
        """The held-out loss of a finished run; None for another one."""
        nats = None if self.data is None else self.data.figure("held_out", "nats_per_token")
        return float(nats) if isinstance(nats, int | float) else None


@dataclass(frozen=True)
class TableData:
    """A table of arms, as its folder tells of it.

    Attributes:
        folder: its path as the user wrote it.
        about: what it compares; empty if unknown.
        baseline: the arm that the others are compared with; empty if unknown.
        arms: the figures of each arm that has a finished run.
        runs: all runs, those that try learning rates among them.
        fits: of cram.plan fit=; empty without them.
        repeated_data: the same of runs that repeat their data; None without them.
    """

    folder: Path
    about: str
    baseline: str
    arms: Sequence[ArmFigures]
    runs: Sequence[TableRun]
    fits: Sequence[KindFits]
    repeated_data: RepeatedData | None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name


def read_table(folder: Path) -> TableData:
    """Read the folder of a table of `cram.ablate`, finished or not, or one that `cram.plan fit=` has written to.

    Raises:
        CramError: for a folder that is neither, and for files that are damaged.
    """
    if not folder.is_dir():
        raise CramError(f"table={folder}: there is no such folder. Name the folder of a table of cram.ablate.")
    results, fits, repeated = (folder / name for name in (RESULTS, FITS_FILE, FIGURES))
    runs = _read_runs(folder)
    if not runs and not any(path.exists() for path in (results, fits, repeated)):
        raise CramError(
            f"table={folder} is not the folder of a table: it has neither {RESULTS} nor {FITS_FILE}, nor runs.\n"
            "Name the folder that cram.ablate prints, such as runs/ablations/recipe-10m."
        )
    if results.exists():
        about, baseline, arms, planned = _read_results(results, runs)
    else:
        about, baseline, planned = "", "", [_guess_run(name, run) for name, run in runs.items()]
        arms = _arms_of_runs(planned)
    return TableData(
        folder=folder,
        about=about,
        baseline=baseline,
        arms=arms,
        runs=planned,
        fits=read_fits(fits) if fits.exists() else [],
        repeated_data=read_repeated_data(repeated) if repeated.exists() else None,
    )


def _read_runs(folder: Path) -> dict[str, RunData]:
    """Read all runs in a folder, by name. A folder without a recipe is not yet a run."""
    return {path.parent.name: read_run(path.parent) for path in sorted(folder.glob(f"*/{RECIPE}"))}


def _read_results(path: Path, runs: dict[str, RunData]) -> tuple[str, str, list[ArmFigures], list[TableRun]]:
    """Read results.json: what it is about, the baseline, the arms and the runs."""
    content = read_json(path)
    try:
        arms = [_to_arm(outcome) for outcome in content["arms"]]
        planned = [_to_run(run, runs) for run in content.get("runs", [])]
        about, baseline = str(content["about"]), str(content["baseline"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CramError(
            f"{path}: damaged, or not the results of a table. Make it again: the same command of cram.ablate."
        ) from None
    # Earlier versions did not list their runs.
    listed, names = {run.folder for run in planned}, [arm.arm for arm in arms]
    others = [_guess_run(name, run, names) for name, run in runs.items() if name not in listed]
    return about, baseline, arms, [*planned, *others]


def _to_arm(outcome: Mapping[str, Any]) -> ArmFigures:
    over = outcome["over_baseline"]
    return ArmFigures(
        arm=str(outcome["arm"]),
        column=str(outcome["column"]),
        budget=str(outcome["budget"]),
        nats={int(seed): _number(nats) for seed, nats in zip(outcome["seeds"], outcome["nats"]["all"], strict=True)},
        over_baseline=None if over is None else _number(over),
        compares=str(outcome["compares"]),
        expected=str(outcome["expected"]),
        published=str(outcome["published"]),
        agrees=str(outcome["agrees"]),
        words=[str(word) for word in outcome["words"]],
        rate=None if outcome["rate"] is None else _number(outcome["rate"]),
        figures={
            **{name: _mean(outcome[name]) for name in ("cramming_rule_nats", *RECEIPT_FIGURES)},
            # Results of earlier versions do not have halves.
            **{half: _mean(losses["nats"]) for half, losses in outcome.get("halves", {}).items()},
            "peak_memory_bytes": _number(outcome["peak_memory_bytes"]),
            "faults": _number(outcome["faults"]),
        },
        seconds={str(account): _number(value) for account, value in outcome["seconds"].items()},
        data=[str(data) for data in outcome["data"]],
        devices=[str(device) for device in outcome["device"]],
    )


def _to_run(planned: Mapping[str, Any], runs: Mapping[str, RunData]) -> TableRun:
    rate = planned["rate"]
    folder = str(planned["folder"])
    return TableRun(
        folder=folder,
        arm=str(planned["arm"]),
        column=str(planned["column"]),
        budget=str(planned["budget"]),
        seed=int(planned["seed"]),
        rate=None if rate is None else _number(rate),
        data=runs.get(folder),
    )


def _guess_run(name: str, run: RunData, arms: Sequence[str] = ()) -> TableRun:
    """What the name of a run's folder says of its place in the table.

    Args:
        name: of the folder: the arm, then column, share and seed, or the rate that was tried.
        run: that it holds.
        arms: names that are known.
    """
    tried, named = RATE_OF_NAME.fullmatch(name), SEED_OF_NAME.fullmatch(name)
    begin = tried.group(1) if tried else named.group(1) if named else name
    known = [arm for arm in arms if begin == arm or begin.startswith(f"{arm}-")]
    arm = max(known, key=len, default=begin)
    rate = float(tried.group(2)) if tried else None
    seed = int(named.group(2)) if named and not tried else run.config.seed
    return TableRun(name, arm, "", run.config.budget, seed, rate, run)


def _arms_of_runs(runs: Sequence[TableRun]) -> list[ArmFigures]:
    """The figures of arms whose table has no results yet, by the names of their runs."""
    groups: dict[tuple[str, str], list[TableRun]] = {}
    for run in runs:
        if run.nats is not None and run.rate is None and run.data is not None and run.data.status == "finished":
            groups.setdefault((run.arm, run.budget), []).append(run)
    return [_summarize(arm, budget, group) for (arm, budget), group in groups.items()]


def _summarize(arm: str, budget: str, runs: Sequence[TableRun]) -> ArmFigures:
    finished = [run.data for run in runs if run.data is not None]
    memory = [run.figure("peak_memory_bytes", "gpu") or run.figure("peak_memory_bytes", "host") for run in finished]
    return ArmFigures(
        arm=arm,
        column="",
        budget=budget,
        nats={run.seed: run.nats for run in runs if run.nats is not None},
        figures={
            "cramming_rule_nats": _mean_of(
                [run.figure("held_out", "cramming_rule", "nats_per_token") for run in finished]
            ),
            **{half: _mean_of([run.figure("held_out", half, "nats_per_token") for run in finished]) for half in HALVES},
            **{name: _mean_of([run.figure(key) for run in finished]) for name, key in RECEIPT_FIGURES.items()},
            "peak_memory_bytes": max((value for value in memory if value), default=None),
            "faults": sum(run.figure("faults", "skipped") or 0 for run in finished),
        },
        data=sorted({str(run.figure("data", "hash")) for run in finished}),
        devices=sorted({name for run in finished for name in devices_of_receipt(run.receipt or {})}),
    )


def _mean_of(values: Sequence[Any]) -> float | None:
    known = [value for value in values if isinstance(value, int | float)]
    return statistics.fmean(known) if known else None


def _mean(figures: Mapping[str, Any] | None) -> float | None:
    return None if figures is None else _number(figures["mean"])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        raise TypeError(value)
    return value
