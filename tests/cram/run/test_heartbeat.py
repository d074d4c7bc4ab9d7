"""The heartbeat: charged time on the disk each second, and what a damaged file counts for."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cram.budget import Budget
from cram.clock import Clock
from cram.errors import CramError
from cram.files.sealed import write_sealed
from cram.run import heartbeat
from cram.run.heartbeat import Heartbeat, last_beat, read_heartbeat


class FakeTime:
    """A clock whose time the tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.005)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "no beat within ten seconds"
        time.sleep(0.005)


def test_beats_follow_the_charged_time_while_a_run_trains(tmp_path: Path) -> None:
    hand = FakeTime()
    clock = Clock(Budget("wall", 100), now=hand)
    with clock.account("updates"), Heartbeat(tmp_path, clock):
        for hand.now in (3.0, 8.0):
            wait_for(lambda: read_heartbeat(tmp_path) == hand.now)
        with clock.account("evaluation"):
            hand.now = 50.0
        hand.now = 51.0
    assert read_heartbeat(tmp_path) == 9.0  # written at the end too; the evaluation is not charged
    assert abs(json.loads((tmp_path / "heartbeat.json").read_text())["time"] - time.time()) < 60
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat.json"]


def test_the_end_waits_for_a_beat_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()

    def write_slowly(path: Path, beat: dict[str, float]) -> None:
        if threading.current_thread().name == "heartbeat":
            started.set()
            time.sleep(0.1)
        write_sealed(path, beat)

    monkeypatch.setattr(heartbeat, "write_sealed", write_slowly)
    with Heartbeat(tmp_path, Clock(Budget("wall", 100))):
        assert started.wait(10)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("error", [CramError("full"), OSError("gone")])
def test_a_beat_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed = threading.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise error

    hand = FakeTime()
    clock = Clock(Budget("wall", 100), now=hand)
    with clock.account("updates"), Heartbeat(tmp_path, clock):
        with monkeypatch.context() as patch:
            patch.setattr(heartbeat, "write_sealed", fail)
            assert failed.wait(10)
        hand.now = 2.0
        wait_for(lambda: read_heartbeat(tmp_path) == 2.0)


BROKEN_FILES = [b"", b'{"time": 1.0, "char', b"\xff", b"{}", b"null", b"[1]", b"3", b"[" * 99999]
BROKEN_VALUES = [b"null", b"NaN", b"Infinity", b"1e999", b"-1", b'"9"', b"true", b"[1]", b"1" + b"0" * 400]
WITHOUT_CHECKSUM = b'{"time": 1.0, "charged": 9.0}'


@pytest.mark.parametrize(
    "content", [*BROKEN_FILES, *(b'{"charged": %s}' % value for value in BROKEN_VALUES), WITHOUT_CHECKSUM]
)
def test_a_damaged_file_counts_as_zero_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    assert read_heartbeat(tmp_path) == 0.0 and not capsys.readouterr().out
    (tmp_path / "heartbeat.json").write_bytes(content)
    assert read_heartbeat(tmp_path) == 0.0
    assert "heartbeat.json is damaged or edited, so the time that a crash" in capsys.readouterr().out


@pytest.mark.parametrize("charged", [None, "7", True, -1.0, 10**400, [1], {}])
def test_a_value_of_another_type_counts_as_zero_despite_its_checksum(tmp_path: Path, charged: object) -> None:
    write_sealed(tmp_path / "heartbeat.json", {"time": 1.0, "charged": charged})
    assert read_heartbeat(tmp_path) == 0.0
    write_sealed(tmp_path / "heartbeat.json", {"time": 1.0, "charged": 7})
    assert read_heartbeat(tmp_path) == 7.0


def test_the_time_of_the_last_beat(tmp_path: Path) -> None:
    assert last_beat(tmp_path) is None
    before = time.time()
    with Heartbeat(tmp_path, Clock(Budget("wall", 60.0))):
        pass
    beat = last_beat(tmp_path)
    assert beat is not None
    assert before <= beat <= time.time()
    write_sealed(tmp_path / "heartbeat.json", {"time": "now"})
    assert last_beat(tmp_path) is None
    (tmp_path / "heartbeat.json").write_text("{}")
    assert last_beat(tmp_path) is None
