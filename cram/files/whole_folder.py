"""Folders that exist either completely or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cram.errors import CramError
from cram.files.limits import report_disk_errors
from cram.files.lock import NO_LINKS, lock_descriptor


def check_folder_path(folder: Path, key: str = "to", follow_link: bool = False) -> None:
    """Check that a path is, or can become, a folder to write to.

    Args:
        folder: the path.
        key: the key that names it in the user's words.
        follow_link: whether a link to a folder is accepted.

    Raises:
        CramError: the path is a root, a link or a file, or lies below a file.
    """
    try:
        problem = _find_problem(folder, follow_link)
    except (OSError, RuntimeError) as error:  # the name is too long, or links form a circle
        problem = f" cannot be a folder ({getattr(error, 'strerror', None) or error}). Choose another place."
    if problem:
        raise CramError(f"{key}={folder}{problem}")


def _find_problem(folder: Path, follow_link: bool) -> str | None:
    """What is wrong with the path, as the end of a message that begins with `key=path`; None if nothing is."""
    if folder.is_symlink() and not (follow_link and folder.is_dir()):
        return " is a link. Give the folder itself, or remove the link."
    if not folder.name or folder.resolve().parent == folder.resolve():
        return " is a folder that always exists. Give a new folder inside it."
    if folder.exists() and not folder.is_dir():
        return " is a file. Choose another place, or remove it."
    above = next((parent for parent in folder.parents if parent.exists() or parent.is_symlink()), folder.parent)
    if above.is_dir():
        return None
    kind = "a file" if above.exists() else "a link to nothing"
    return f": {above} is {kind}, so there can be no folder below it. Choose another place."


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside `to`, for the `with` block to fill.

    The block renames the folder to `to` when it is complete. A folder that was not renamed is removed at the end.
    The remains of a process that was killed are removed first. Two processes cannot fill the same folder.

    Raises:
        CramError: `check_folder_path` refuses `to`, the disk is full, the folder cannot be written, or another process
            is filling it.
    """
    check_folder_path(to)
    with report_disk_errors(to, "to"):
        to.parent.mkdir(parents=True, exist_ok=True)
        partial = to.with_name(f".{to.name}.partial")
        descriptor = _open_locked(partial)
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(descriptor)


def _open_locked(folder: Path) -> int:
    """Create a folder and lock it for this process; its file descriptor."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | NO_LINKS)
        try:
            if not lock_descriptor(descriptor, folder.parent):
                raise CramError(f"{folder}: another process is at work there. Wait for it, or choose another to=.")
            if _is_same(folder, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another process has just renamed the folder that was opened: try again


def _is_same(folder: Path, descriptor: int) -> bool:
    """Whether the path still leads to the folder that was opened."""
    try:
        return os.path.samestat(folder.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
