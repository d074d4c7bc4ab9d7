"""What the run does with the tracker of `track=`: which records it gets, and what happens when it fails."""

import importlib.util
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cram.config.choices import TRACKERS
from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.run.trackers.tracker import Record, TrackedRun, Tracker

STATE = "tracker.json"


def check_tracker(kind: str | None) -> None:
    """Check, before any work, that the package of a tracker is installed.

    Raises:
        CramError: where it is not.
    """
    if kind is not None and importlib.util.find_spec(kind) is None:
        raise CramError(
            f"track={kind} needs the package {kind}. Install it with pip install -e '.[track]', or leave track= out."
        )


class Tracking:
    """Sends the records of a run to its tracker, and goes on without it after its first failure.

    The file tracker.json of the run folder names the run to the tracker, so that a resumed run continues it there. A
    tracker takes steps in rising order only. Records that a killed process had sent, and that are made again, are
    therefore left out: a resumed run repeats the same updates. An extension that throws updates away trains other ones
    in their place. It begins another run in the tracker, with all records that remain.

    Args:
        kind: a word of `track`; None for no tracker.
    """

    def __init__(self, kind: str | None) -> None:
        self._kind = kind
        self._tracker: Tracker | None = None
        self._sent_step = -1

    def begin(self, run: Path, records: Sequence[Record], written_step: int, restart: bool) -> None:
        """Begin to track a run, or continue to.

        Args:
            run: its folder.
            records: those that the run has so far.
            written_step: the last step of which an earlier process has written a record, even if it was cut off since.
            restart: whether the run goes on with other updates than those that were sent.
        """
        if self._kind is None:
            return
        with self._survive():
            state = read_json(run / STATE) if (run / STATE).is_file() else {}
            continues = state.get("tracker") == self._kind and not restart
            known: int = max(state["sent_step"], written_step) if continues else -1
            name = state["id"] if continues else uuid.uuid4().hex[:8]
            tracker: Tracker = TRACKERS[self._kind].load()()
            told = tracker.begin(TrackedRun(run, name))
            write_json(run / STATE, {"tracker": self._kind, "id": name, "sent_step": known})
            self._sent_step = known if told is None or not continues else told
            self._tracker = tracker
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """Send a record, unless an earlier process has sent it."""
        if self._tracker is not None and record["step"] > self._sent_step:
            with self._survive():
                self._tracker.write(record)

    def end(self, summary: Mapping[str, Any] | None = None) -> None:
        """End the tracking in this process.

        Args:
            summary: figures of the receipt; None for a run that is not finished.
        """
        if self._tracker is not None:
            with self._survive():
                self._tracker.end(summary or {})
            self._tracker = None

    @contextmanager
    def _survive(self) -> Iterator[None]:
        """Turn any failure of a tracker into one warning. The run goes on without the tracker."""
        try:
            yield
        except Exception as error:
            self._tracker = None
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            print(
                f"warning: track={self._kind}: {reason}\n"
                "The run goes on without the tracker; its metrics.jsonl and TensorBoard files have everything.",
                flush=True,
            )
