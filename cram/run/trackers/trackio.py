"""trackio, which keeps runs on this machine (`trackio show`), or in a Space of the Hub (`TRACKIO_SPACE_ID`)."""

from collections.abc import Mapping
from typing import Any

from cram.run.trackers.tracker import PROJECT, Record, TrackedRun, name_numbers


class Trackio:
    """The tracker of `track=trackio`."""

    def begin(self, run: TrackedRun) -> int | None:
        """Begin or continue the run. trackio finds a run by its name, which therefore contains the id."""
        import trackio

        self._run = trackio.init(
            project=PROJECT,
            name=f"{run.name}-{run.id}",
            group=run.group,
            config=run.recipe,
            resume="allow",
            embed=False,
            # Threads that sample the machine would take time that is charged to the budget.
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._step = 0
        # What was queued in the last half second before a kill is not in its store, which alone knows.
        next_step: int | None = getattr(self._run, "_next_step", None)
        return None if next_step is None else next_step - 1

    def write(self, record: Record) -> None:
        """Queue the numbers of a record; a thread stores or sends them."""
        self._step = int(record["step"])
        if numbers := name_numbers(record):
            self._run.log(numbers, step=self._step)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Add the figures of the receipt to the last step, and wait until everything is stored or sent."""
        import trackio

        numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        if numbers:
            self._run.log(numbers, step=self._step)
        trackio.finish()
