"""Words of tiny runs, and how they are stopped."""

from pathlib import Path

import pytest

# Nothing of these depends on the budget before the learning rate falls, from half of it on.
STEADY = ["schedule.warmup=0", "schedule.decay_start=0.5", "objective.mask_rate=0.3", "objective.final_mask_rate=null"]
STEADY += ["optimizer.muon.momentum_start=null", "data.epochs=3", "model.kind=crammed"]


def stop_at(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """Interrupt the next training after some updates."""

    class Stop:
        def __init__(self) -> None:
            self.left = updates

        def __enter__(self) -> "Stop":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        @property
        def asked(self) -> bool:
            self.left -= 1
            return self.left <= 0

    monkeypatch.setattr("cram.training.start.StopSignals", Stop)


def with_run(words: list[str], folder: Path) -> list[str]:
    return [*(word for word in words if not word.startswith("run=")), f"run={folder}"]
