"""The folder in which shards are made, by one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cram.files.lock import take_lock, wait_for_lock


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
