"""Files that are written whole or not at all, JSON without NaN, and hashes of files."""

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
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=not_json)
    except FileNotFoundError:
        raise CramError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CramError(f"{path}: not a readable JSON file ({error}).") from None


def check_regular(path: Path) -> None:
    """A pipe without a writer would be waited for. Errors: CramError for what is there and is not a regular file."""
    if path.exists() and not path.is_file():
        raise CramError(f"{path}: not a regular file. Remove it, or choose another folder.")


def not_json(constant: str) -> None:
    """Refuse NaN and Infinity where JSON is parsed: `parse_constant` of `json.loads`."""
    raise ValueError(f"{constant} is not a number of JSON")


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content, read as a stream."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
