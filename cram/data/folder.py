"""The folder in which shards are made: one process at a time, and what its disk may say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cram.errors import CramError
from cram.limits import raise_if_out_of_memory, raise_if_too_many
from cram.lock import take_lock, wait_for_lock
from cram.record import raise_if_full


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing the same folder meanwhile; wait for the one that does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    lock = take_lock(path)
    if lock is None:
        print(f"another process is preparing {folder}; waiting for it", flush=True)
        lock = wait_for_lock(path)
    with lock:
        yield


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn what a disk says into a CramError that names the folder."""
    try:
        yield
    except OSError as error:
        raise_if_full(error, folder)
        raise_if_too_many(error)
        raise_if_out_of_memory(error)
        raise CramError(f"data.dir={str(folder)!r}: cannot be written ({error}); choose another folder") from error
