"""Find and open the files that a user names by a path, a folder or a glob."""

import errno
import glob
import os
from io import BufferedReader
from pathlib import Path


def find_files(pattern: str, extensions: tuple[str, ...] = ()) -> list[Path]:
    """Return the files that a pattern names, in the order of their names; none if nothing matches.

    A path that exists is taken literally, even if its name holds the signs of a glob. A folder stands for all files
    below it whose name ends in one of the `extensions`; links to folders are not followed there, because they may lead
    back. In a glob, `**` matches folders at any depth; a file that it reaches in several ways, through links, is
    returned once.
    """
    if os.path.isdir(pattern):  # noqa: PTH112 (Path.is_dir raises for names that are too long or hold a zero byte)
        files = (Path(folder, name) for folder, _, names in os.walk(pattern) for name in names)
        return sorted(path for path in files if path.name.lower().endswith(extensions))
    if os.path.lexists(pattern):
        return [Path(pattern)]
    # The longest names first, so that of several ways to one file the shortest stays in the dictionary.
    names = sorted(glob.glob(pattern, recursive=True), key=lambda name: (-len(name), name))  # noqa: PTH207
    by_real_path = {
        Path(os.path.realpath(os.path.dirname(name)), os.path.basename(name)): Path(name)  # noqa: PTH119, PTH120
        for name in names
    }
    return sorted(path for real_path, path in by_real_path.items() if not os.path.isdir(real_path))  # noqa: PTH112


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading bytes.

    Raises:
        OSError: if the file cannot be opened, or is a pipe, a device or a socket. Text is read twice, and reading one
            of these might wait forever or never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket")
    return path.open("rb")
