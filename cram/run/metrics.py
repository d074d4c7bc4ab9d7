"""The metrics of a run: `metrics.jsonl`, and the same scalars for TensorBoard."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import check_regular, refuse_constant, report_full_disk, sha256_bytes, to_json, write_atomic

SCALARS = ("charged_seconds", "loss", "nats_per_token")  # of a line of metrics, where it has them


class Metrics:
    """`metrics.jsonl`, one record a line, and the same scalars as TensorBoard files.

    The TensorBoard files are derived: opening a run again drops them and replays the lines that are
    kept, so that the two never disagree and a resumed run joins without gap or repeat.

    Args:
        run: the run folder.
        kept: the `state` in the checkpoint that the run goes on from; what was written after it is cut.

    Errors: CramError when the lines from before that checkpoint are not those that were written.
    """

    def __init__(self, run: Path, kept: Mapping[str, Any] | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / "metrics.jsonl"
        data = _kept(self.path, kept) if kept else b""
        write_atomic(self.path, data)
        self._file = self.path.open("ab")
        self._bytes, self._digest = len(data), hashlib.sha256(data)
        for old in (run / "tensorboard").glob("events.*"):
            old.unlink()
        self._board = SummaryWriter(str(run / "tensorboard"))
        self.lines = 0
        for record in read_metrics(self.path):
            self._to_board(record)

    def state(self) -> dict[str, Any]:
        """Length and hash of what was written, for a checkpoint."""
        return {"lines": self.lines, "bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it must hold `kind`, `step` and `time` (seconds since the epoch)."""
        line = (to_json(record) + "\n").encode()
        with report_full_disk(self.path):
            self._file.write(line)
            self._file.flush()
            self._to_board(record)
        self._bytes += len(line)
        self._digest.update(line)

    def _to_board(self, record: dict[str, Any]) -> None:
        self.lines += 1
        for name, value in record.items():
            # What is not finite is null when it is read back, so it is left out at once.
            if isinstance(value, int | float) and name not in ("step", "time") and math.isfinite(value):
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"], record["time"])

    def flush(self) -> None:
        """Put every line on the disk: before a checkpoint counts them."""
        with report_full_disk(self.path):
            os.fsync(self._file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Flush and close both."""
        self.flush()
        self._file.close()
        self._board.close()


def _kept(path: Path, kept: Mapping[str, Any]) -> bytes:
    """The beginning of a metrics file, up to a checkpoint; nothing, with a warning, of one that was removed."""
    if not path.exists():
        print(f"warning: {path} is gone; the metrics go on without what was in it", flush=True)
        return b""
    check_regular(path)
    data = path.read_bytes()[: kept["bytes"]]
    if sha256_bytes(data) != kept["sha256"]:
        raise CramError(
            f"{path}: damaged or edited, its first {kept['lines']} lines are not those that the run wrote.\n"
            "Put them back, or remove the file: the run then goes on without them."
        )
    return data


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a line that a crash cut short ends it.

    Errors: CramError for a file that is not there, and for a line before the last that no run has written.
    """
    check_regular(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CramError(f"{path}: cannot be read ({error.strerror}).") from None
    records = []
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None and number < len(lines):
            raise CramError(f"{path}: damaged or edited, line {number} is not a record of a run. Remove the file.")
        if record is not None:
            records.append(record)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is not an object with the scalars that every line has."""
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("kind"), str)
    scalars = whole and all(_is_scalar(record[name]) for name in ("step", "time", *SCALARS) if name in record)
    return record if scalars else None


def _is_scalar(value: Any) -> bool:
    """A number, or the null that is written for one that is not finite."""
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)
