"""One lock for every folder that one process at a time may write to."""

import errno
import os
from pathlib import Path
from typing import IO

# What a platform or a file system answers that has no such locks: some networks' and some containers'.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
NO_LINKS: int = getattr(os, "O_NOFOLLOW", 0)
_told: set[Path] = set()


def take_lock(path: Path) -> IO[bytes] | None:
    """Lock a file, which is made where it is missing; its folder must be there.

    Returns the open file: to close it, or to end however, gives the lock back. None while another process has the
    lock. Where there are no locks, the file is returned as if it were locked, with a warning.

    Errors: OSError for a file that cannot be opened for writing, and for a link.
    """
    return _lock(path, wait=False)


def wait_for_lock(path: Path) -> IO[bytes]:
    """The same, but wait while another process has the lock."""
    file = _lock(path, wait=True)
    assert file is not None
    return file


def lock_open(number: int, folder: Path, wait: bool = False) -> bool:
    """Lock an open file or folder, by its number; false while another process has it.

    Args:
        folder: that is named in the warning where there are no locks.
    """
    try:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except ImportError:
        _warn(folder)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        _warn(folder)
    return True


def _lock(path: Path, wait: bool) -> IO[bytes] | None:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666), "r+b", buffering=0)
    try:
        locked = lock_open(file.fileno(), path.parent, wait)
    except BaseException:
        file.close()
        raise
    if not locked:
        file.close()
    return file if locked else None


def _warn(folder: Path) -> None:
    if folder not in _told:
        _told.add(folder)
        print(f"warning: {folder} has no file locks. Let no second command write there meanwhile.", flush=True)
