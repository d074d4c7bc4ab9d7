"""A folder that is there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cram.errors import CramError
from cram.files.limits import naming_disk_errors
from cram.files.lock import NO_LINKS, lock_open


def check_place(folder: Path, word: str = "to", through: bool = False) -> None:
    """Whether a folder can be written or made there.

    Args:
        word: the key that names it.
        through: whether a link to a folder will do.

    Errors: CramError for a root, a link, a file, and a place below a file.
    """
    try:
        fault = _fault(folder, through)
    except (OSError, RuntimeError) as error:  # a name that is too long, or links in a circle
        fault = f" cannot be a folder ({getattr(error, 'strerror', None) or error}). Choose another place."
    if fault:
        raise CramError(f"{word}={folder}{fault}")


def _fault(folder: Path, through: bool) -> str | None:
    if folder.is_symlink() and not (through and folder.is_dir()):
        return " is a link. Give the folder itself, or remove the link."
    if not folder.name or folder.resolve().parent == folder.resolve():
        return " is a folder that is always there. Give a new folder in it."
    if folder.exists() and not folder.is_dir():
        return " is a file. Choose another place, or remove it."
    above = next((one for one in folder.parents if one.exists() or one.is_symlink()), folder.parent)
    if above.is_dir():
        return None
    what = "a file" if above.exists() else "a link to nothing"
    return f": {above} is {what}, no folder can be below it. Choose another place."


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """An empty folder, hidden beside `to`, that the body fills and gives its name, or that is gone in the end.

    What a killed process left there is removed; a process that is at work there is not disturbed.

    Errors: CramError as `check_place`, where the disk is full, where nothing can be written, and where another process
    is at work.
    """
    check_place(to)
    with naming_disk_errors(to, "to"):
        to.parent.mkdir(parents=True, exist_ok=True)
        partial = to.with_name(f".{to.name}.partial")
        number = _open_alone(partial)
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(number)


def _open_alone(folder: Path) -> int:
    """Make a folder, and lock it for this process."""
    while True:
        folder.mkdir(exist_ok=True)
        number = os.open(folder, os.O_RDONLY | NO_LINKS)
        try:
            if not lock_open(number, folder.parent):
                raise CramError(f"{folder}: another process is at work there. Wait for it, or choose another to=.")
            if _is_there(folder, number):
                return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # another process has just given it its name


def _is_there(folder: Path, number: int) -> bool:
    """Whether a path is still the folder that was opened."""
    try:
        return os.path.samestat(folder.lstat(), os.fstat(number))
    except FileNotFoundError:
        return False
