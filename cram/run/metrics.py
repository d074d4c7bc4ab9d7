"""The metrics of a run: metrics.jsonl, and the same numbers for TensorBoard and trackers.

Each line of metrics.jsonl is a JSON object with `kind` (train, held_out, phase, fault, threads or resume), `step`
(updates so far), `time` (seconds since the epoch) and the values of its kind. docs/using.md lists them.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cram.errors import CramError
from cram.files.atomic import check_regular, report_full_disk, sha256_bytes, to_json, write_atomic
from cram.run.trackers.tensorboard import TensorBoard
from cram.run.trackers.tracker import TrackedRun
from cram.run.trackers.tracking import Tracking

# Values that readers compute with, so that they are checked wherever a record has them.
NUMBERS = ("step", "time", "charged_seconds", "loss", "nats_per_token")


class Metrics:
    """Writes metrics.jsonl, and the same numbers as TensorBoard files and to a tracker.

    A run that is resumed continues the file behind the last line that its checkpoint counts. The TensorBoard files are
    written anew from the lines that remain, so that both always agree.

    Args:
        run: the run folder.
        saved: `state()` in the checkpoint that the run continues from; None starts an empty file.
        track: tracker that `track` also writes to; None for none.
        restart: whether the run goes on with other updates than those that its earlier processes did behind `saved`.

    Raises:
        CramError: the lines before the checkpoint are damaged or edited.
    """

    def __init__(
        self, run: Path, saved: Mapping[str, Any] | None = None, track: str | None = None, restart: bool = False
    ) -> None:
        self.path = run / "metrics.jsonl"
        written_step = _last_step(self.path) if saved else -1
        data = _read_saved(self.path, saved) if saved else b""
        write_atomic(self.path, data)
        self._file = self.path.open("ab")
        self._bytes, self._digest = len(data), hashlib.sha256(data)
        records = read_metrics(self.path)
        self.lines = len(records)
        self._tensorboard = TensorBoard(TrackedRun(run, run.name), records)
        self._tracking = Tracking(track)
        self._tracking.begin(run, records, written_step, restart or not saved)

    def state(self) -> dict[str, Any]:
        """Return the length and hash of all lines, for a checkpoint."""
        return {"lines": self.lines, "bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def write(self, record: dict[str, Any]) -> None:
        """Append a line, to metrics.jsonl and to the TensorBoard file.

        Args:
            record: JSON object with `kind`, `step` and `time`.
        """
        line = (to_json(record) + "\n").encode()
        with report_full_disk(self.path):
            self._file.write(line)
            self._file.flush()
            self._tensorboard.write(record)
        self.lines += 1
        self._bytes += len(line)
        self._digest.update(line)

    def track(self, record: dict[str, Any]) -> None:
        """Send a record that was written to the tracker. This may take long, and belongs into an account of its own."""
        self._tracking.write(record)

    def flush(self) -> None:
        """Force all lines to the disk, so that a checkpoint can count them."""
        with report_full_disk(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file and the TensorBoard files. The tracker stays open for the figures of the receipt."""
        self.flush()
        self._file.close()
        self._tensorboard.close()

    def end_tracking(self, summary: Mapping[str, Any] | None = None) -> None:
        """End the tracker's work in this process.

        Args:
            summary: figures of the receipt by name; None for a run that is not finished.
        """
        self._tracking.end(summary)


def _last_step(path: Path) -> int:
    """Find the last step of which a metrics file has a record; -1 for a file without one."""
    if not path.is_file():
        return -1
    records = (_parse_record(line) for line in path.read_bytes().split(b"\n"))
    steps = (record.get("step") for record in records if record)
    return max((step for step in steps if isinstance(step, int)), default=-1)


def _read_saved(path: Path, saved: Mapping[str, Any]) -> bytes:
    """Read the part of a metrics file that a checkpoint counts: nothing, with a warning, if the file is gone."""
    if not path.exists():
        print(f"warning: {path} is gone, so the metrics begin again without its lines", flush=True)
        return b""
    check_regular(path)
    data = path.read_bytes()[: saved["bytes"]]
    if sha256_bytes(data) != saved["sha256"]:
        raise CramError(
            f"{path}: damaged or edited, its first {saved['lines']} lines are not those that the run wrote.\n"
            "Put them back, or remove the file: the run then continues without them."
        )
    return data


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the records of a metrics file. An incomplete last line, as a crash leaves it, is ignored.

    Raises:
        CramError: the file cannot be read, or a line before the last is not a record.
    """
    check_regular(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CramError(f"{path}: cannot be read ({error.strerror}).") from None
    records = []
    for number, line in enumerate(lines, 1):
        record = _parse_record(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise CramError(f"{path}: damaged or edited, line {number} is not a record of a run. Remove the file.")
    return records


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None for a line that is not a record."""
    try:
        record = orjson.loads(line)  # takes a quarter of the time of `json`, for up to 100,000 lines
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    for name in NUMBERS:
        value = record.get(name)  # null stands for infinity and NaN
        if value is not None and not (isinstance(value, int | float) and abs(value) <= sys.float_info.max):
            return None
    return record
