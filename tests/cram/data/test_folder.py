import errno
import threading
from pathlib import Path

import pytest

from cram.data.folder import alone, naming_disk_errors
from cram.errors import CramError


def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data" / "shards"
    events = []

    def second() -> None:
        with alone(folder):
            events.append("second")

    waiting = threading.Thread(target=second)
    with alone(folder):
        waiting.start()
        waiting.join(timeout=0.2)
        events.append("first")
    waiting.join(timeout=30)
    assert events == ["first", "second"]
    assert capsys.readouterr().out == f"another process is preparing {folder}; waiting for it\n"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"shards: the disk is full"),
        (errno.EMFILE, r"too many files are open\. Allow more and run the same command again: ulimit -n"),
        (errno.EROFS, r"data\.dir='shards': cannot be written \(.*read-only\); choose another folder"),
    ],
)
def test_what_a_disk_says_is_told(number: int, message: str) -> None:
    with pytest.raises(CramError, match=message), naming_disk_errors(Path("shards")):
        raise OSError(number, "read-only")
