import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cram.data.cluster import head_watch
from cram.data.cluster.head_watch import HeadWatch
from cram.errors import CramError

ROOT = Path(__file__).parents[4]


def wait_for_loss(watch: HeadWatch) -> None:
    deadline = time.monotonic() + 10
    while not watch.lost and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_head_that_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "LOOK_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        watch = HeadWatch([address])
        time.sleep(0.3)
        watch.raise_if_lost()
    wait_for_loss(watch)
    with pytest.raises(CramError, match=rf"\Adata\.engine=ray: the head .* was lost \({address}\)\n.*same command"):
        watch.raise_if_lost()


def test_a_watch_that_was_stopped_notices_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_watch, "LOOK_SECONDS", 0.02)
    watch = HeadWatch(["127.0.0.1:1"])
    watch.stop()
    time.sleep(0.3)
    watch.raise_if_lost()
    assert not watch.lost


def test_a_process_that_does_not_return_from_ray_is_ended() -> None:
    script = (
        "import time; from cram.data.cluster import head_watch\n"
        "head_watch.LOOK_SECONDS = head_watch.GRACE = 0.05\n"
        "head_watch.HeadWatch(['127.0.0.1:1']); time.sleep(30)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("cram: data.engine=ray: the head of the cluster or this node was lost")
    assert found.stderr.count("\n") == 2
