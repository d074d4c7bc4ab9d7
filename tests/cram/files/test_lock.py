import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cram.files import lock
from cram.files.lock import LOCKS_UNSUPPORTED, take_lock, wait_for_lock

ROOT = Path(__file__).parents[3]
HOLD = "import sys, time\nfrom pathlib import Path\nfrom cram.files.lock import take_lock\n"
HOLD += "held = take_lock(Path(sys.argv[1]))\nprint(held is not None, flush=True)\ntime.sleep(60)"


def test_a_lock_is_one_process_s_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    held = take_lock(path)
    assert held is not None
    assert take_lock(path) is None
    held.close()
    with wait_for_lock(path):
        assert take_lock(path) is None
    assert take_lock(path) is not None


def test_who_waits_gets_it_next(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    got = threading.Event()

    def wait() -> None:
        with wait_for_lock(path):
            got.set()

    waiting = threading.Thread(target=wait)
    with wait_for_lock(path):
        waiting.start()
        assert not got.wait(0.1)
    waiting.join(timeout=30)
    assert got.is_set()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"True\n"
        assert take_lock(path) is None
        holder.kill()
        holder.wait()
    assert take_lock(path) is not None


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_where_there_are_no_locks_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    for name in (".lock", ".other"):
        assert take_lock(tmp_path / name) is not None
        assert not wait_for_lock(tmp_path / name).closed
    assert capsys.readouterr().out == (
        f"warning: {tmp_path} does not support file locks. Do not run a second command that writes there.\n"
    )


def test_another_platform_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert take_lock(tmp_path / ".lock") is not None
    assert tmp_path in lock._warned_folders


def test_other_errors_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert errno.EIO not in LOCKS_UNSUPPORTED
    with pytest.raises(OSError, match="Input/output error"):
        take_lock(tmp_path / ".lock")


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    (tmp_path / ".lock").symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic links"):
        take_lock(tmp_path / ".lock")
    assert theirs.read_text() == "kept"
