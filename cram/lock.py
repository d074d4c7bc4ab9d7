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


def _lock(path: Path, wait: bool) -> IO[bytes] | None:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666), "r+b", buffering=0)
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except ImportError:
        _warn(path.parent)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            file.close()
            raise
        _warn(path.parent)
    return file


def _warn(folder: Path) -> None:
    if folder not in _told:
        _told.add(folder)
        print(f"warning: {folder} has no file locks. Let no second command write there meanwhile.", flush=True)
