"""The TensorBoard files of a run, read back by TensorBoard itself."""

from pathlib import Path
from typing import Any

import numpy as np

from cram.run.metrics import read_metrics
from cram.run.trackers.tracker import name_numbers

Scalars = dict[str, list[tuple[int, float, float]]]


def load_events(run: Path) -> Any:
    """What TensorBoard has read: all scalars, however many."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def read_tensorboard(run: Path) -> Scalars:
    """Step, time and value of every scalar, by tag."""
    events = load_events(run)
    return {
        tag: [(event.step, event.wall_time, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def check_agreement(run: Path) -> None:
    """Check that every number of metrics.jsonl is in the TensorBoard file, rounded to fp32, and nothing else."""
    expected: Scalars = {}
    for record in read_metrics(run / "metrics.jsonl"):
        for name, number in name_numbers(record).items():
            expected.setdefault(name, []).append((record["step"], record["time"], float(np.float32(number))))
    assert expected
    assert read_tensorboard(run) == expected
