import errno
import subprocess
import sys
from pathlib import Path

import pytest

from cram.errors import CramError
from cram.files.whole_folder import check_folder_path, whole_folder

ROOT = Path(__file__).parents[3]
KILLED = """
import os, signal, sys
from pathlib import Path
from cram.files.whole_folder import whole_folder
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    return tmp_path


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/", "to=/ is a folder that always exists"),
        ("//", "is a folder that always exists"),
        ("../" * 40, "is a folder that always exists"),
        (".", r"to=\. is a folder that always exists"),
        ("file", "to=file is a file"),
        ("file/below", "to=file/below: file is a file, so there can be no folder below it"),
        ("file/below/deep", "file is a file, so there can be no folder below it"),
        ("link", "to=link is a link"),
        ("dangling", "to=dangling is a link"),
        ("dangling/below", "dangling is a link to nothing, so there can be no folder below it"),
        ("circle", "to=circle is a link"),
        ("circle/below", r"to=circle/below(: circle is a link to nothing| cannot be a folder)"),
        ("a" * 300, "cannot be a folder"),
    ],
)
def test_a_place_that_cannot_be_a_folder_is_refused(here: Path, place: str, message: str) -> None:
    before = sorted(here.iterdir())
    with pytest.raises(CramError, match=message) as caught, whole_folder(Path(place)):
        raise AssertionError("the body is not reached")
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("place", ["new", "new/below", "folder", "folder/new", "link/new", "folder/../new"])
def test_other_places_will_do(here: Path, place: str) -> None:
    check_folder_path(Path(place))
    check_folder_path(Path("link"), follow_link=True)


def test_a_link_at_the_hidden_name_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / ".b.partial").symlink_to(tmp_path)
    message = r"to=.*b: cannot be written \((Not a directory|Too many levels of symbolic links)\)"
    with pytest.raises(CramError, match=message), whole_folder(tmp_path / "b"):
        raise AssertionError
    assert names(tmp_path) == [".b.partial"]
