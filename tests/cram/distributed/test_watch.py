import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.distributed.watch import (
    ALL_WAIT,
    LIMITS,
    LONG_CALLS,
    LONG_SILENCE,
    LONGEST_ROUND,
    SILENCE,
    SLOWNESS,
    WAITING,
    Fault,
    Judge,
    OwnSign,
    Sign,
    has_ended,
    is_gone,
    is_stopped,
    process_state,
    this_host,
)

ROOT = Path(__file__).resolve().parents[3]


class Run:
    """Ranks with a clock of their own, looked at by a judge once a second."""

    def __init__(self, size: int) -> None:
        self.now = 100.0
        self.states = [("starting", self.now)] * size
        self.own = [OwnSign(lambda rank=rank: self.states[rank]) for rank in range(size)]  # type: ignore[misc]
        self.signs: dict[int, Sign] = {}
        self.stopped: set[int] = set()
        self.gone: set[int] = set()
        self.known_stopped: set[int] = set()
        self.judge = Judge(lambda sign: sign.pid in self.gone, lambda sign: sign.pid in self.known_stopped)

    def enter(self, state: str, *ranks: int) -> None:
        for rank in ranks or range(len(self.states)):
            self.states[rank] = (state, self.now)

    def second(self, elapsed: float = 1.0, passed: float | None = None) -> Fault | None:
        """A second: each rank that is not stopped shows a sign, and the judge looks."""
        self.now += elapsed if passed is None else passed
        for rank, own in enumerate(self.own):
            if rank not in self.stopped:
                self.signs[rank] = replace(Sign(**own.make(elapsed, self.now)), pid=rank)
        return self.judge.look(self.signs, elapsed)

    def seconds(self, count: float) -> Fault | None:
        """Seconds until the first fault."""
        for _ in range(math.ceil(count)):
            if fault := self.second():
                return fault
        return None


def test_ranks_that_show_progress_are_not_at_fault() -> None:
    run = Run(3)
    for _ in range(100):
        run.enter("updating")
        assert run.seconds(3) is None


def test_a_rank_that_hangs_is_named_and_those_that_wait_for_it_are_not() -> None:
    run = Run(3)
    run.enter("updating")
    run.enter("waiting for other ranks", 0, 2)
    assert run.seconds(LIMITS["updating"]) is None
    fault = run.seconds(2)
    assert fault is not None
    assert (fault.culprits, fault.status) == ((1,), 1)
    assert fault.message.startswith("rank 1 has shown no progress for 41 s while updating; all ranks end. ")


def test_a_silent_rank_is_named() -> None:
    run = Run(3)
    run.enter("updating")
    run.second()
    run.stopped.add(2)
    assert run.seconds(SILENCE - 1) is None
    fault = run.seconds(2)
    assert fault is not None
    assert fault.culprits == (2,)
    assert "rank 2 has not answered for 20 s while updating" in fault.message


def test_a_rank_in_a_long_call_may_be_silent_for_longer_unless_it_is_stopped() -> None:
    run = Run(2)
    run.enter("saving", 0)
    run.enter("waiting for an order", 1)
    run.second()
    run.stopped = {0}
    assert run.seconds(SILENCE + 20) is None
    run.known_stopped = {0}
    fault = run.second()
    assert fault is not None
    assert fault.message.startswith("rank 0 has not answered for 41 s while saving")
    run.known_stopped = set()
    fault = run.seconds(LONG_SILENCE)
    assert fault is not None
    assert fault.culprits == (0,)


def test_a_rank_that_is_continued_in_time_is_not_at_fault() -> None:
    run = Run(2)
    for _ in range(5):
        run.enter("updating")
        run.stopped = {1}
        assert run.seconds(SILENCE - 2) is None
        run.stopped = set()
        assert run.seconds(2) is None


def test_a_rank_whose_process_has_ended_is_found_at_once() -> None:
    run = Run(2)
    run.enter("saving")
    run.second()
    run.stopped, run.gone = {0}, {0}
    fault = run.second()
    assert fault is not None
    assert (fault.culprits, fault.message.split(";")[0]) == ((0,), "rank 0 has died while saving")


def test_a_run_that_is_stopped_as_a_whole_goes_on() -> None:
    """An hour without rounds is one round of two seconds."""
    run = Run(2)
    run.enter("updating")
    assert run.seconds(5) is None
    assert run.second(elapsed=LONGEST_ROUND, passed=3600.0) is None
    assert run.seconds(LIMITS["updating"] - 5 - LONGEST_ROUND) is None
    assert run.seconds(2) is not None


def test_a_slow_machine_has_more_time() -> None:
    run = Run(2)
    usual = 8
    for _ in range(3):
        run.enter("updating")
        assert run.seconds(usual) is None
    run.enter("updating", 0)  # rank 1 hangs: its present wait must not raise its limit
    while (fault := run.second()) is None:
        run.enter("waiting for other ranks", 0)
    assert fault.culprits == (1,)
    hung = run.signs[1].seconds
    assert SLOWNESS * (usual - 1) < hung <= SLOWNESS * 4 * usual


def test_ranks_that_all_wait_for_each_other_end() -> None:
    run = Run(2)
    run.enter("waiting for other ranks", 0)
    run.enter("waiting for an order", 1)
    assert run.seconds(ALL_WAIT) is None
    fault = run.seconds(2)
    assert fault is not None
    assert "all ranks have waited for each other for 120 s; all" in fault.message


def test_waiting_for_a_rank_that_prepares_has_no_end() -> None:
    run = Run(2)
    run.enter("preparing", 0)
    run.enter("waiting for an order", 1)
    assert run.seconds(5000) is None


@pytest.mark.parametrize("status", [1, 2, 130])
def test_a_rank_that_ends_by_an_error_ends_all_with_its_status_and_message(status: int) -> None:
    run = Run(3)
    run.own[1].status, run.own[1].message = status, "device=cuda: none here."
    run.stopped = {2}
    assert run.second() == Fault("device=cuda: none here.", status, (1,))


def test_a_rank_that_has_ended_well_may_be_silent_and_gone() -> None:
    run = Run(2)
    run.own[1].status = 0
    run.second()
    run.stopped, run.gone = {1}, {1}
    run.enter("finishing", 0)
    assert run.seconds(100) is None


@given(st.lists(st.sampled_from(sorted(LIMITS)), min_size=2, max_size=5), st.integers(0, 4))
def test_whoever_dies_is_the_only_culprit(states: list[str], which: int) -> None:
    run, dead = Run(len(states)), which % len(states)
    for rank, state in enumerate(states):
        run.enter(state, rank)
    run.second()
    run.stopped = run.known_stopped = {dead}
    fault = run.seconds(SILENCE + 1)
    assert fault is not None
    assert fault.culprits == (dead,)
    assert (f" while {states[dead]};" in fault.message) == (states[dead] not in WAITING)


def test_every_rank_that_hangs_is_named() -> None:
    run = Run(3)
    run.enter("updating", 0, 1)
    run.enter("waiting for other ranks", 2)
    fault = run.seconds(LIMITS["updating"] + 1)
    assert fault is not None
    assert fault.message.startswith("ranks 0, 1 have shown no progress")
    run = Run(2)
    run.enter("updating")
    fault = run.seconds(LIMITS["updating"] + 1)
    assert fault is not None
    assert fault.message.startswith("all ranks have shown no progress")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_this_machine_knows_whether_a_process_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ended = Sign(1, "updating", 0.0, None, child.pid, this_host())
        assert not is_gone(ended)
        child.send_signal(signal.SIGSTOP)
        while process_state(child.pid) != "T":
            time.sleep(0.01)
        assert (is_gone(ended), is_stopped(ended)) == (False, True)
        assert not is_stopped(replace(ended, host="another machine"))
        child.kill()
        while process_state(child.pid) != "Z":
            time.sleep(0.01)
        assert is_gone(ended)
    assert is_gone(ended)
    assert has_ended(ended)
    assert not is_gone(replace(ended, host="another machine"))
    assert not is_gone(replace(ended, pid=os.getpid()))
    assert has_ended(replace(ended, pid=os.getpid(), status=0))


def test_every_state_that_a_rank_may_enter_has_a_limit() -> None:
    name = re.compile(r"(?:on_all_ranks|\.doing|\.enter)\(\s*\"([^\"]+)\"")
    states = {state for path in (ROOT / "cram").rglob("*.py") for state in name.findall(path.read_text())}
    assert {"updating", "saving"} <= states <= LIMITS.keys()
    assert {*WAITING, *LONG_CALLS} <= LIMITS.keys()
