"""The files that a user's words name: a file, a folder, or a glob."""

import errno
import glob
import os
from io import BufferedReader
from pathlib import Path


def matching_files(pattern: str, extensions: tuple[str, ...] = ()) -> list[Path]:
    """The files of a pattern in the order of their names; none where nothing matches.

    What is there under the very name is taken literally, whatever signs of a glob the name holds. A folder stands for
    the files below it that end in one of the `extensions`; links to folders are not followed there, as they may lead
    back. In a glob `**` goes into folders; a folder that it reaches by several ways, as links give them, counts once.
    """
    if os.path.isdir(pattern):  # noqa: PTH112 (this one never fails)
        below = (Path(folder, name) for folder, _, names in os.walk(pattern) for name in names)
        return sorted(path for path in below if path.name.lower().endswith(extensions))
    if os.path.lexists(pattern):
        return [Path(pattern)]
    names = sorted(glob.glob(pattern, recursive=True), key=lambda name: (-len(name), name))  # noqa: PTH207
    # Of several ways to one file the shortest: the last of equal keys stays.
    once = {Path(os.path.realpath(os.path.dirname(name)), os.path.basename(name)): Path(name) for name in names}  # noqa: PTH119, PTH120
    return sorted(path for real, path in once.items() if not os.path.isdir(real))  # noqa: PTH112


def open_file(path: Path) -> BufferedReader:
    """A file, opened to be read.

    Errors: OSError, also for a pipe or a device: text is read twice, and these would be waited for or never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket")
    return path.open("rb")
