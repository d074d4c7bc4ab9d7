"""Ranks as threads of this process that meet at a real store."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from cram.distributed import meeting as meeting_module
from cram.distributed import watch_thread
from cram.distributed.launch import Launch
from cram.distributed.meeting import Meeting, leave, meet, pick_backend, rank_facts
from cram.distributed.store import Board
from cram.distributed.watch_thread import Watch
from cram.errors import CramError

Rank = Callable[[Meeting], Any]


@dataclass
class Ended:
    """What the watch of the ranks has done, where it would have ended a process."""

    statuses: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Lets ranks be quick, and keeps the watch from ending the process of the tests."""
    ended = Ended()
    monkeypatch.setattr(watch_thread, "_leave", ended.statuses.append)
    monkeypatch.setattr(watch_thread, "_say", ended.lines.append)
    monkeypatch.setattr(watch_thread, "is_gone", lambda _: False)
    monkeypatch.setattr(meeting_module, "has_ended", lambda sign: sign.status is not None)
    for module, name, value in (
        (watch_thread, "ROUND", 0.05),
        (watch_thread, "SPEAKING", 0.2),
        (watch_thread, "REFUSALS", 0.2),
        (meeting_module, "POLL", 0.02),
        (meeting_module, "OWN_FAULT", 0.3),
        (meeting_module, "LAST_WORDS", 5.0),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return ended


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def run(ended: Ended, port: int) -> Iterator[Callable[..., list[Any]]]:
    """Runs a function for each rank, and gives what they return or raise."""
    meetings: list[Meeting] = []

    def start(*ranks: Rank, number: int = 0) -> list[Any]:
        def one(rank: int) -> Any:
            meeting = Meeting(Launch(rank, len(ranks), rank, len(ranks), "localhost", port), number)
            meetings.append(meeting)
            try:
                with meeting:
                    return ranks[rank](meeting)
            except (CramError, ValueError, KeyboardInterrupt) as error:
                return error

        with ThreadPoolExecutor(len(ranks)) as pool:
            return list(pool.map(one, range(len(ranks))))

    yield start
    for meeting in meetings:
        meeting.stop()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_announcements_of_rank_0_come_in_their_order(run: Callable[..., list[Any]], ended: Ended) -> None:
    def lead(meeting: Meeting) -> None:
        meeting.check({"torch": "2"})
        meeting.announce({"rows": [1, 2]})
        time.sleep(0.2)
        meeting.announce("second")

    def follow(meeting: Meeting) -> list[Any]:
        meeting.check({"torch": "2"})
        return [meeting.await_announcement(), meeting.await_announcement()]

    assert run(lead, follow, follow) == [None, [{"rows": [1, 2]}, "second"], [{"rows": [1, 2]}, "second"]]
    assert ended == Ended()


def test_a_rank_that_differs_is_named_by_rank_0_and_all_end(run: Callable[..., list[Any]], ended: Ended) -> None:
    def rank(torch_version: str) -> Rank:
        return lambda meeting: meeting.check({"torch": torch_version, "device": "cpu"})

    error, *others = run(rank("2.13"), rank("2.13"), rank("2.12"))
    assert isinstance(error, CramError)
    assert str(error).startswith("rank 2 differs from rank 0: torch is 2.12, not 2.13.\n")
    assert others == [None, None]


def test_the_ranks_that_wait_end_with_rank_0(run: Callable[..., list[Any]], ended: Ended) -> None:
    """Rank 0 has said what is wrong, so the others say nothing."""
    waiting = threading.Event()

    def lead(_: Meeting) -> None:
        waiting.wait()
        raise CramError("data.source=x: there is no such file.")

    def follow(_: Meeting) -> None:
        waiting.set()
        eventually(lambda: ended.statuses == [2, 2])  # of the threads of the two waiting ranks

    assert [type(result) for result in run(lead, follow, follow)] == [CramError, type(None), type(None)]
    assert ended.lines == []


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (CramError("rank 1: no such folder."), 2, "rank 1: no such folder."),
        (KeyboardInterrupt(), 130, None),
        (ValueError("text\nmore"), 1, "rank 1 has failed (ValueError: text); all ranks end. "),
    ],
)
def test_rank_0_says_why_another_rank_ends(
    run: Callable[..., list[Any]], ended: Ended, error: BaseException, status: int, line: str | None
) -> None:
    def lead(_: Meeting) -> None:
        eventually(lambda: ended.statuses == [status, status])

    def fail(_: Meeting) -> None:
        raise error

    def wait(_: Meeting) -> None:
        eventually(lambda: ended.statuses == [status, status])

    run(lead, fail, wait)
    assert len(ended.lines) == (line is not None)
    assert ended.lines == [] or ended.lines[0].startswith(str(line))


@pytest.mark.parametrize("status", [0, 2, 130])
def test_all_ranks_leave_with_the_status_of_rank_0(run: Callable[..., list[Any]], ended: Ended, status: int) -> None:
    def lead(meeting: Meeting) -> int:
        time.sleep(0.2)
        return meeting.leave(status)

    assert run(lead, lambda meeting: meeting.leave(0), lambda meeting: meeting.leave(0)) == [status] * 3
    assert ended.lines == []


def test_the_same_error_on_all_ranks_is_said_once(run: Callable[..., list[Any]], ended: Ended) -> None:
    def rank(meeting: Meeting) -> int:
        return meeting.leave(2, "bad=word.")

    assert run(rank, rank, rank) == [2, 2, 2]
    assert ended == Ended()


def test_a_second_meeting_hears_nothing_of_the_first(run: Callable[..., list[Any]], ended: Ended) -> None:
    for number in range(2):
        results = run(
            lambda meeting, number=number: meeting.announce(number),
            lambda meeting: meeting.await_announcement(),
            number=number,
        )
        assert results == [None, number]


def test_ranks_end_when_the_host_of_the_store_is_gone(ended: Ended, port: int) -> None:
    store = Board(Launch(0, 3, 0, 3, "localhost", port), hosts=True)
    watches = [Watch(Launch(rank, 3, rank, 3, "localhost", port), lambda: ("updating", 0.0)) for rank in (1, 2)]
    for watch in watches:
        watch.start()
    del store
    eventually(lambda: ended.statuses == [1, 1])
    assert len(ended.lines) == 1
    assert ended.lines[0].startswith("rank 0 has died or cannot be reached; all ranks end. ")
    for watch in watches:
        watch.stop()


def test_a_process_that_is_alone_meets_nobody() -> None:
    with meet(Launch()) as meeting:
        meeting.check({"torch": "2"})
        meeting.announce(1)
        ranks = meeting.form_groups(torch.device("cpu"))
    assert (ranks.alone, ranks.backend) == (True, "")


def test_a_store_that_cannot_be_opened_is_the_fault_of_the_words(ended: Ended, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        with pytest.raises(CramError, match=f"MASTER_PORT={port}: the port cannot be opened"):
            Meeting(Launch(0, 2, 0, 2, "localhost", port))


def test_a_rank_that_finds_no_store_says_so_itself_and_does_not_wait_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts = []

    def fail(launch: Launch, number: int) -> None:
        attempts.append(number)
        raise CramError("rank 1: no answer")

    monkeypatch.setattr(meeting_module, "open_board", fail)
    monkeypatch.setattr(meeting_module, "_MEETINGS", [])
    monkeypatch.setattr(meeting_module, "_UNREACHED", set())
    launch = Launch(rank=1, size=2, local_rank=1, local_size=2)
    with pytest.raises(CramError, match="no answer"):
        meet(launch)
    assert leave(launch, 2, "rank 1: no answer") == 2
    assert attempts == [0]
    assert capsys.readouterr().err == "cram: rank 1: no answer\n"


def test_a_torch_without_the_library_of_the_exchange_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(CramError, match="device=cuda: several ranks need NCCL"):
        pick_backend(torch.device("cuda:1"))
    assert rank_facts(torch.device("cpu"))["backend"] == "gloo"
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    with pytest.raises(CramError, match="several ranks need gloo"):
        pick_backend(torch.device("cpu"))
