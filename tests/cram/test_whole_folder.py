import errno
import subprocess
import sys
from pathlib import Path

import pytest

from cram.errors import CramError
from cram.whole_folder import whole_folder

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from cram.whole_folder import whole_folder
with whole_folder(Path(sys.argv[1])) as partial:
    (partial / "sub").mkdir()
    (partial / "sub" / "half").touch()
    (partial / "link").symlink_to("/")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_there_whole(tmp_path: Path) -> None:
    to = tmp_path / "deep" / "out"
    with whole_folder(to) as partial:
        (partial / "file").write_text("all of it")
        assert names(to.parent) == [".out.partial"]
        partial.rename(to)
    assert names(to.parent) == ["out"] and names(to) == ["file"]


def test_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as partial:
        (partial / "file").write_text("half of it")
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], cwd=ROOT, check=False)
    assert names(tmp_path / ".out.partial") == ["link", "sub"]
    with whole_folder(tmp_path / "out") as partial:
        assert names(partial) == []
    assert names(tmp_path) == []


def test_a_process_at_work_is_not_disturbed(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as partial:
        (partial / "file").touch()
        message = r"\.out\.partial: another process is at work there\. Wait for it, or choose another to="
        with pytest.raises(CramError, match=message), whole_folder(tmp_path / "out"):
            raise AssertionError
        assert names(partial) == ["file"]
        partial.rename(tmp_path / "out")
        with whole_folder(tmp_path / "out") as other:  # the lock has gone with the folder that has its name now
            assert names(other) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"out: the disk is full \(.*\)\. Free some space and run the same command again"),
        (errno.EROFS, r"to=.*out: cannot be written \(Read-only file system\)\. Choose another to="),
        (errno.EMFILE, r"too many files are open\. Allow more"),
    ],
)
def test_what_a_disk_says_is_told_and_nothing_is_left(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(CramError, match=message), whole_folder(tmp_path / "out"):
        raise OSError(number, "Read-only file system")
    assert names(tmp_path) == []


def test_what_a_library_says_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such model"), whole_folder(tmp_path / "out"):
        raise OSError("no such model")


def test_places_that_no_folder_can_be_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".b.partial").symlink_to(tmp_path)
    for to, message in (
        (Path("/"), r"to=/ is a folder that is always there\. Choose a new folder, like to=/export"),
        (Path(), r"to=\. is a folder that is always there"),
        (tmp_path / "link", r"to=.*link is a link that leads nowhere\. Remove it, or choose another to="),
        (tmp_path / "file" / "out", r"to=.*out: .*file is a file, and no folder can be below it\. Choose"),
        (tmp_path / ("x" * 300), r"cannot be written \(File name too long\)"),
        (tmp_path / "b", r"to=.*b: cannot be written \((Not a directory|Too many levels of symbolic links)\)"),
    ):
        with pytest.raises(CramError, match=message), whole_folder(to):
            raise AssertionError
    assert names(tmp_path) == [".b.partial", "file", "link"]
