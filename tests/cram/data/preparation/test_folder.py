import threading
from pathlib import Path

import pytest

from cram.data.preparation.folder import lock_folder


def test_a_second_process_waits_for_the_first_and_prints_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "shards"
    events = []

    def second() -> None:
        with lock_folder(folder):
            events.append("second")

    waiting = threading.Thread(target=second)
    with lock_folder(folder):
        waiting.start()
        waiting.join(timeout=0.2)
        events.append("first")
    waiting.join(timeout=30)
    assert events == ["first", "second"]
    assert capsys.readouterr().out == f"another process is preparing {folder}; waiting for it\n"
    assert not folder.exists()
