"""The list of fine-tunings, and glue.json, which is written after each, so that a killed command goes on."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import nonfinite_to_none
from cram.files.sealed import read_sealed, write_sealed
from cram.glue.metrics import counted

# What the results are made from, of each job.
OUTCOME = ("scores", "data", "train", "began_with", "learning_rate", "batch", "epochs")


@dataclass(frozen=True)
class Job:
    """One fine-tuning: of the checkpoint, or of the same architecture with random weights."""

    task: str
    learning_rate: float
    seed: int
    untrained: bool = False

    @property
    def name(self) -> str:
        """`cola-4e-05-seed0`."""
        return f"{'untrained-' * self.untrained}{self.task}-{self.learning_rate!r}-seed{self.seed}"


def plan(tasks: Iterable[str], learning_rates: Iterable[float], seeds: int, untrained: bool = False) -> list[Job]:
    """All fine-tunings, task by task."""
    rates = list(learning_rates)
    return [Job(task, rate, seed, untrained) for task in tasks for rate in rates for seed in range(seeds)]


class Record:
    """glue.json: the settings, each finished job with its outcome, and the results once all are done.

    Args:
        path: of the file; there or not.
        settings: what every job shares, JSON values.

    Errors: CramError when the file is of other settings, or is none.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.outcomes: dict[Job, dict[str, Any]] = {}
        if path.exists():
            self._load(read_sealed(path, ". Move it away, or choose another to=."))

    def _load(self, there: Any) -> None:
        try:
            before, jobs = there["settings"], there["jobs"]
            self.outcomes = {Job(**entry["job"]): entry["outcome"] for entry in jobs}
            whole = all(name in outcome for outcome in self.outcomes.values() for name in OUTCOME)
        except (KeyError, TypeError):
            whole = False
        if not whole:
            raise CramError(
                f"{self.path}: not a record of GLUE results, or one of another version. "
                "Move it away, or choose another to=."
            )
        names = dict.fromkeys((*before, *self.settings))
        different = [name for name in names if before.get(name) != self.settings.get(name)]
        if different:
            said = "; ".join(
                f"{name} is {before.get(name)} there, {self.settings.get(name)} here" for name in different
            )
            raise CramError(
                f"{self.path} holds results of other settings: {said}.\n"
                "Choose another to=, or give the words that they were started with."
            )

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those jobs that are not done yet."""
        return [job for job in jobs if job not in self.outcomes]

    def check_data(self, task: str, data: str) -> None:
        """Refuse to mix results. Errors: CramError where a task's finished jobs had other rows than `data`, a hash."""
        for job, outcome in self.outcomes.items():
            if job.task == task and outcome["data"] != data:
                raise CramError(
                    f"{self.path} holds results of {task} on other rows than these. "
                    "Choose another to=, or the data= that they were started with."
                )

    def add(self, job: Job, outcome: dict[str, Any]) -> None:
        """Keep a finished job, on the disk before this returns."""
        self.outcomes[job] = nonfinite_to_none(outcome)
        self.write(None)

    def write(self, results: dict[str, Any] | None) -> None:
        """Write the file, whole or not at all."""
        jobs = [{"job": asdict(job), "outcome": outcome} for job, outcome in self.outcomes.items()]
        write_sealed(self.path, {"settings": self.settings, "jobs": jobs, "results": results})

    def seeds(self, task: str, learning_rate: float, untrained: bool = False) -> dict[int, dict[str, Any]]:
        """Outcomes of one task at one learning rate, by seed."""
        return {
            job.seed: outcome
            for job, outcome in sorted(self.outcomes.items(), key=lambda item: item[0].seed)
            if (job.task, job.learning_rate, job.untrained) == (task, learning_rate, untrained)
        }


def first_score(outcome: dict[str, Any]) -> float:
    """The published metric of an outcome's first part, NaN as 0."""
    first = next(iter(outcome["scores"].values()))
    return counted(next(iter(first.values())))


def median_seed(outcomes: Mapping[int, dict[str, Any]], kept: Iterable[int]) -> int:
    """Of the seeds that are kept the one whose score is nearest to the median of all; the lowest of equals."""
    middle = statistics.median(first_score(outcome) for outcome in outcomes.values())
    return min(kept, key=lambda seed: (abs(first_score(outcomes[seed]) - middle), seed))
