"""What is kept on disk: whole files or none, and the metrics of a run."""

import errno
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cram.errors import CramError

SCALARS = ("charged_seconds", "loss", "nats_per_token")  # of a line of metrics, where it has them
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all: temporary name, flush to disk, rename.

    One writer at a time to a path. Errors: CramError when the disk is full; the temporary file is gone then.
    """
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")  # what a crash left there is removed, a link too
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk met in the `with` body into a CramError that names the file."""
    try:
        yield
    except OSError as error:
        raise_if_full(error, path)
        raise


def raise_if_full(error: OSError, path: Path) -> None:
    """Turn a full disk into a CramError that names the file; let any other error pass."""
    if error.errno in DISK_FULL:
        raise CramError(
            f"{path}: the disk is full ({error.strerror}). Free some space and run the same command again."
        ) from None


def to_json(value: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON of plain values, `null` for numbers that are not finite, as JSON has none. All that is written goes here."""
    return json.dumps(finite(value), indent=indent, sort_keys=sort_keys, allow_nan=False)


def finite(value: Any) -> Any:
    """The same mappings and lists, with None for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_atomic(path, (to_json(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Errors: CramError for a missing or broken one; NaN and Infinity are not JSON."""
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_json)
    except FileNotFoundError:
        raise CramError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CramError(f"{path}: not a readable JSON file ({error}).") from None


def check_regular(path: Path) -> None:
    """A pipe without a writer would be waited for. Errors: CramError for what is there and is not a regular file."""
    if path.exists() and not path.is_file():
        raise CramError(f"{path}: not a regular file. Remove it, or choose another folder.")


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content, read as a stream."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        with naming_full_disk(self.path):
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
        with naming_full_disk(self.path):
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
        record = json.loads(line.decode("utf-8"), parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("kind"), str)
    scalars = whole and all(_is_scalar(record[name]) for name in ("step", "time", *SCALARS) if name in record)
    return record if scalars else None


def _is_scalar(value: Any) -> bool:
    """A number, or the null that is written for one that is not finite."""
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)
