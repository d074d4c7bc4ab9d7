"""The list of fine-tunings, and glue.json, which is written after each of them, so that a killed command resumes."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import nonfinite_to_none
from cram.files.sealed import read_sealed, write_sealed
from cram.glue.metrics import nan_to_zero

# Keys that every outcome has, because results are computed from them.
OUTCOME_KEYS = ("scores", "data", "train", "began_with", "learning_rate", "batch", "epochs")
# Values of the settings that files of earlier versions do not hold.
EARLIER_SETTINGS = {"optimizer": "adamw", "layer_decay": 1.0}


@dataclass(frozen=True)
class Job:
    """One fine-tuning: of the checkpoint, or of the same architecture with random weights."""

    task: str
    learning_rate: float
    seed: int
    untrained: bool = False

    @property
    def name(self) -> str:
        """`cola-4e-05-seed0`, also the name of its folder."""
        return f"{'untrained-' * self.untrained}{self.task}-{self.learning_rate!r}-seed{self.seed}"


def plan_jobs(tasks: Iterable[str], learning_rates: Iterable[float], seeds: int, untrained: bool = False) -> list[Job]:
    """All fine-tunings, task by task."""
    rates = list(learning_rates)
    return [Job(task, rate, seed, untrained) for task in tasks for rate in rates for seed in range(seeds)]


class ResultsFile:
    """glue.json: the settings, each finished job with its outcome, and the results once all are done.

    Args:
        path: of the file, which need not exist.
        settings: what all jobs share, as JSON values.

    Raises:
        CramError: for a file of other settings, a damaged one, and one of another format.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.outcomes: dict[Job, dict[str, Any]] = {}
        if path.exists():
            self._load(read_sealed(path, ". Move it away, or choose another to=."))

    def _load(self, content: Any) -> None:
        try:
            earlier_settings, jobs = EARLIER_SETTINGS | content["settings"], content["jobs"]
            self.outcomes = {Job(**entry["job"]): entry["outcome"] for entry in jobs}
            complete = all(name in outcome for outcome in self.outcomes.values() for name in OUTCOME_KEYS)
        except (KeyError, TypeError):
            complete = False
        if not complete:
            raise CramError(
                f"{self.path}: not a file of GLUE results, or one of another version. "
                "Move it away, or choose another to=."
            )
        settings = EARLIER_SETTINGS | self.settings
        names = dict.fromkeys((*earlier_settings, *settings))
        different = [name for name in names if earlier_settings.get(name) != settings.get(name)]
        if different:
            differences = "; ".join(
                f"{name} is {earlier_settings.get(name)} there, {settings.get(name)} here" for name in different
            )
            raise CramError(
                f"{self.path} holds results of other settings: {differences}.\n"
                "Choose another to=, or give the words that they were started with."
            )

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of the jobs that have no outcome yet."""
        return [job for job in jobs if job not in self.outcomes]

    def check_data(self, task: str, data_hash: str) -> None:
        """Check that the finished jobs of a task used the same examples, so that results are not mixed.

        Raises:
            CramError: where they used others.
        """
        for job, outcome in self.outcomes.items():
            if job.task == task and outcome["data"] != data_hash:
                raise CramError(
                    f"{self.path} holds results of {task} on other rows than these. "
                    "Choose another to=, or the data= that they were started with."
                )

    def add(self, job: Job, outcome: dict[str, Any]) -> None:
        """Add the outcome of a finished job; it is on the disk before this returns."""
        self.outcomes[job] = nonfinite_to_none(outcome)
        self.write(None)

    def arrange(self, jobs: Iterable[Job]) -> None:
        """Put the outcomes of some jobs behind all others, in the order of the jobs. This does not write the file."""
        for job in jobs:
            if job in self.outcomes:
                self.outcomes[job] = self.outcomes.pop(job)

    def write(self, results: dict[str, Any] | None) -> None:
        """Write the file, whole or not at all."""
        jobs = [{"job": asdict(job), "outcome": outcome} for job, outcome in self.outcomes.items()]
        write_sealed(self.path, {"settings": self.settings, "jobs": jobs, "results": results})

    def outcomes_by_seed(self, task: str, learning_rate: float, untrained: bool = False) -> dict[int, dict[str, Any]]:
        """Outcomes of one task at one learning rate."""
        return {
            job.seed: outcome
            for job, outcome in sorted(self.outcomes.items(), key=lambda item: item[0].seed)
            if (job.task, job.learning_rate, job.untrained) == (task, learning_rate, untrained)
        }


def first_score(outcome: dict[str, Any]) -> float:
    """The published metric of the first subset, NaN as 0: the score that a seed is chosen by."""
    scores = next(iter(outcome["scores"].values()))
    return nan_to_zero(next(iter(scores.values())))


def median_seed(outcomes: Mapping[int, dict[str, Any]], seeds: Iterable[int]) -> int:
    """The seed whose score is nearest to the median of all outcomes. Among equally near seeds it is the lowest.

    Args:
        outcomes: by seed.
        seeds: to choose from.
    """
    median = statistics.median(first_score(outcome) for outcome in outcomes.values())
    return min(seeds, key=lambda seed: (abs(first_score(outcomes[seed]) - median), seed))
