"""Atomic writes, JSON without NaN, and hashes of files."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cram.errors import CramError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that it exists either completely or not at all.

    The data goes to a temporary name, is flushed to the disk, and the file is renamed. Only one process may write to a
    path at a time.

    Raises:
        CramError: the disk is full. The temporary file has been removed.
    """
    with report_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            temporary.unlink(missing_ok=True)  # left by a crash; a link is removed too, never followed
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def report_full_disk(path: Path) -> Iterator[None]:
    """Within the `with` block, turn the error of a full disk into a CramError that names `path`."""
    try:
        yield
    except OSError as error:
        raise_if_full(error, path)
        raise


def raise_if_full(error: OSError, path: Path) -> None:
    """Raise a CramError that names `path` if `error` says that the disk is full. Otherwise do nothing.

    Raises:
        CramError: the disk is full.
    """
    if error.errno in DISK_FULL:
        raise CramError(
            f"{path}: the disk is full ({error.strerror}). Free some space and run the same command again."
        ) from None


def to_json(value: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    """Convert plain values to JSON. Every JSON text that cram writes is made here.

    JSON has no NaN and no infinity, so numbers that are not finite become `null`.
    """
    return json.dumps(nonfinite_to_none(value), indent=indent, sort_keys=sort_keys, allow_nan=False)


def nonfinite_to_none(value: Any) -> Any:
    """Copy nested mappings and lists, with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: nonfinite_to_none(inner) for name, inner in value.items()}
    return [nonfinite_to_none(inner) for inner in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, (to_json(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CramError: the file is missing, is not a regular file, or is not valid JSON. NaN and Infinity are not valid.
    """
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except FileNotFoundError:
        raise CramError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CramError(f"{path}: not a readable JSON file ({error}).") from None


def check_regular(path: Path) -> None:
    """Check that a path is a regular file, or that nothing is there. Reading a pipe could wait forever.

    Raises:
        CramError: the path exists and is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise CramError(f"{path}: not a regular file. Remove it, or choose another folder.")


def refuse_constant(constant: str) -> None:
    """Refuse NaN and Infinity: the `parse_constant` argument of `json.loads`.

    Raises:
        ValueError: always; callers report it with the name of the file.
    """
    raise ValueError(f"{constant} is not a JSON number")


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which is read as a stream.

    Raises:
        CramError: the path exists and is not a regular file.
    """
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
