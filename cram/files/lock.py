"""File locks for folders that only one process at a time may write to."""

import errno
import os
from pathlib import Path
from typing import IO

# Error numbers of platforms and file systems without locks: some networks and some containers.
LOCKS_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)
_warned_folders: set[Path] = set()


def take_lock(path: Path) -> IO[bytes] | None:
    """Lock a file, and create it if it is missing. Its folder must exist.

    Returns:
        The open file, or None while another process holds the lock. The lock ends when the file is closed or the
        process ends. Where locks are not supported, the file is returned as if it were locked, after a warning.

    Raises:
        OSError: the file cannot be opened for writing, or is a link.
    """
    return _lock(path, wait=False)


def wait_for_lock(path: Path) -> IO[bytes]:
    """Lock a file as `take_lock` does, but wait while another process holds the lock."""
    file = _lock(path, wait=True)
    assert file is not None
    return file


def lock_descriptor(descriptor: int, folder: Path, wait: bool = False) -> bool:
    """Lock an open file or folder by its file descriptor.

    Args:
        descriptor: of the open file or folder.
        folder: named in the warning where locks are not supported.
        wait: whether to wait while another process holds the lock.

    Returns:
        False if another process holds the lock.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except ImportError:
        _warn(folder)
    except OSError as error:
        if error.errno not in LOCKS_UNSUPPORTED:
            raise
        _warn(folder)
    return True


def _lock(path: Path, wait: bool) -> IO[bytes] | None:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666), "r+b", buffering=0)
    try:
        locked = lock_descriptor(file.fileno(), path.parent, wait)
    except BaseException:
        file.close()
        raise
    if not locked:
        file.close()
    return file if locked else None


def _warn(folder: Path) -> None:
    if folder not in _warned_folders:
        _warned_folders.add(folder)
        print(
            f"warning: {folder} does not support file locks. Do not run a second command that writes there.", flush=True
        )
