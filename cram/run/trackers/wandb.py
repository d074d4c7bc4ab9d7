"""Weights & Biases: its service, its own server, or offline (`WANDB_MODE=offline`, later `wandb sync`)."""

import os
from collections.abc import Mapping
from typing import Any

from cram.run.trackers.tracker import PROJECT, Record, TrackedRun, name_numbers


class Wandb:
    """The tracker of `track=wandb`. wandb's own variables, such as WANDB_PROJECT and WANDB_MODE, hold."""

    def begin(self, run: TrackedRun) -> int | None:
        """Begin or continue the run of this id. Its files are kept in the run folder."""
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.id,
            name=run.name,
            group=os.environ.get("WANDB_RUN_GROUP", run.group),
            config=run.recipe,
            resume="allow",
            dir=str(run.folder),
            # Output and machine are not sampled: that would take time that is charged to the budget.
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )
        # The service tells the next step of a run that it has. Offline nothing is known.
        return None if self._run.offline else int(self._run.starting_step) - 1

    def write(self, record: Record) -> None:
        """Add the numbers of a record to the row of its step, which is sent when the next step begins."""
        if numbers := name_numbers(record):
            self._run.log(numbers, step=int(record["step"]))

    def end(self, summary: Mapping[str, Any]) -> None:
        """Add the figures of the receipt to the summary, and wait until everything is sent or kept."""
        self._run.summary.update(dict(summary))
        self._run.finish()
