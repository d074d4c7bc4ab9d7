"""The metrics of a run: metrics.jsonl, and the same numbers for TensorBoard.

Each line of metrics.jsonl is a JSON object with `kind` (train, held_out, phase, fault or threads), `step` (updates so
far), `time` (seconds since the epoch) and the values of its kind.
"""

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

# Values that readers compute with, so that they are checked wherever a record has them.
NUMBERS = ("step", "time", "charged_seconds", "loss", "nats_per_token")


class Metrics:
    """Writes metrics.jsonl, and the same numbers as TensorBoard files.

    A run that is resumed continues the file behind the last line that its checkpoint counts. The TensorBoard files are
    written anew from the lines that remain, so that both always agree.

    Args:
        run: the run folder.
        saved: `state()` in the checkpoint that the run continues from; None starts an empty file.

    Raises:
        CramError: the lines before the checkpoint are damaged or edited.
    """

    def __init__(self, run: Path, saved: Mapping[str, Any] | None = None) -> None:
        # Imported here because it takes a second, and readers of metrics do not need it.
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / "metrics.jsonl"
        data = _read_saved(self.path, saved) if saved else b""
        write_atomic(self.path, data)
        self._file = self.path.open("ab")
        self._bytes, self._digest = len(data), hashlib.sha256(data)
        for events in (run / "tensorboard").glob("events.*"):
            events.unlink()
        self._tensorboard = SummaryWriter(str(run / "tensorboard"))
        self.lines = 0
        for record in read_metrics(self.path):
            self._add_to_tensorboard(record)

    def state(self) -> dict[str, Any]:
        """Return the length and hash of all lines, for a checkpoint."""
        return {"lines": self.lines, "bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def write(self, record: dict[str, Any]) -> None:
        """Append a line.

        Args:
            record: JSON object with `kind`, `step` and `time`.
        """
        line = (to_json(record) + "\n").encode()
        with report_full_disk(self.path):
            self._file.write(line)
            self._file.flush()
            self._add_to_tensorboard(record)
        self._bytes += len(line)
        self._digest.update(line)

    def _add_to_tensorboard(self, record: dict[str, Any]) -> None:
        self.lines += 1
        for name, value in record.items():
            # JSON has null for infinity and NaN. They are left out here too, so that a rewritten file is the same.
            if isinstance(value, int | float) and name not in ("step", "time") and math.isfinite(value):
                self._tensorboard.add_scalar(f"{record['kind']}/{name}", value, record["step"], record["time"])

    def flush(self) -> None:
        """Force all lines to the disk, so that a checkpoint can count them."""
        with report_full_disk(self.path):
            os.fsync(self._file.fileno())
            self._tensorboard.flush()

    def close(self) -> None:
        """Flush and close the file and the TensorBoard files."""
        self.flush()
        self._file.close()
        self._tensorboard.close()


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
        record = json.loads(line.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    return record if all(_is_number(record[name]) for name in NUMBERS if name in record) else None


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or the null in place of infinity or NaN."""
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)
