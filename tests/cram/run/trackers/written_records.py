"""Records of training for tests of trackers."""

from typing import Any

from cram.run.metrics import Metrics


def train_record(step: int) -> dict[str, Any]:
    return {"kind": "train", "step": step, "time": 1000.0 + step, "loss": 1.0 / step, "lr": {"gains": 0.5}}


def write_records(metrics: Metrics, steps: range) -> None:
    for step in steps:
        metrics.write(train_record(step))
        metrics.track(train_record(step))
