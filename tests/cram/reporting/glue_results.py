"""Folders of GLUE results, made by the code of `cram.glue` from scores that are made up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cram.files.sealed import write_sealed
from cram.glue.protocol import ProtocolReport
from cram.glue.results import summarize
from cram.glue.results_file import Job, ResultsFile, plan_jobs
from cram.glue.tasks import find_tasks

RATES = (4e-5, 2e-4)
IDENTITY = "ab" * 32


def made_up_score(job: Job, metric: str) -> float:
    """Higher at the second rate; -2, 0 and 5 points at three seeds; low without training."""
    base = 30.0 if job.untrained else 60.0 if job.learning_rate == RATES[0] else 70.0
    return base + (-2.0, 0.0, 5.0)[job.seed % 3] + len(metric) / 8


def outcome_of(job: Job) -> dict[str, Any]:
    (task,) = find_tasks([job.task])
    return {
        "scores": {
            subset.name: {metric: made_up_score(job, metric) for metric in task.metrics} for subset in task.subsets
        },
        "loss": 0.5,
        "rows": task.train_rows,
        "updates": 1000,
        "learning_rate": job.learning_rate,
        "batch": 16,
        "epochs": 5,
        "train": f"train of {task.name}",
        "began_with": IDENTITY,
        "data": task.name,
        "seconds": 12.5,
    }


def write_results(folder: Path, tasks: Sequence[str] = (), finished: bool = True, **changes: Any) -> ResultsFile:
    """Write glue.json for three seeds at two rates, and for untrained weights at the better one.

    Args:
        folder: that the file is written to.
        tasks: names of the tasks; all of the mean where there are none.
        finished: whether the results are written; otherwise the fine-tuning of the last seed is missing.
        changes: entries of the results to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = find_tasks(list(tasks))
    names = [task.name for task in chosen]
    file = ResultsFile(folder / "glue.json", {"checkpoint": IDENTITY, "batch": 16, "limit": None, "pooling": "first"})
    jobs = plan_jobs(names, RATES, 3) + (plan_jobs(names, RATES[1:], 3, untrained=True) if finished else [])
    file.outcomes = {job: outcome_of(job) for job in (jobs if finished else jobs[:-1])}
    if not finished:
        file.write(None)
        return file
    majority = {subset.name: 50.0 for task in chosen for subset in task.subsets}
    protocol = ProtocolReport("cramming", ["seeds=3"], ["rows of like length share a batch"])
    results = summarize(file, chosen, RATES, protocol, majority) | {
        "checkpoint": {"run": "runs/made_up", "identity": IDENTITY},
        "device": "a device",
        "models": {names[0]: {"path": f"glue/{names[0]}-seed1", "seed": 1, "score": 70.0}},
        "submission": {"path": "glue/submission.zip", "majority_class": ["wnli", "ax"], "wrong_counts": []},
    }
    file.write(results | changes)
    return file


def write_probe(folder: Path) -> None:
    """Write probe.json for two tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"cola": {"cola": {"matthews": 12.5}}, "stsb": {"stsb": {"pearson": 40.0, "spearman": None}}}
    write_sealed(
        folder / "probe.json",
        {
            "run": "runs/made_up",
            "checkpoint": IDENTITY,
            "pooling": "mean",
            "length": 128,
            "limit": None,
            "device": "a device",
            "rows": {"cola": 8551, "stsb": 5749},
            "remarks": ["stsb: 10 rows are missing"],
            "majority": {"cola": {"cola": {"matthews": 0.0}}},
            "scores": scores,
            "untrained": {},
        },
    )
