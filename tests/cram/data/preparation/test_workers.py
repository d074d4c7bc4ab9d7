import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cram.data.preparation.workers import AHEAD, Workers
from cram.errors import CramError
from cram.machine.processes import STOP_SIGNALS

ROOT = Path(__file__).parents[4]


def double(number: int) -> int:
    time.sleep(0.05 * (number % 3 == 0))  # the first of three is done after the others
    return 2 * number


def refuse(number: int) -> int:
    if number == 3:
        raise CramError(f"number {number}: not wanted\ngive another")
    return number


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class Calls:
    """A function that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _: int) -> tuple[int, int]:
        self.calls += 1
        time.sleep(0.02)
        return os.getpid(), self.calls


def use_up(number: int) -> int:
    if number == 3:
        raise MemoryError
    return number


def surroundings(_: int) -> tuple[str | None, str | None, set[str]]:
    ignored = {name.name for name in STOP_SIGNALS if signal.getsignal(name) == signal.SIG_IGN}
    return os.environ.get("RAYON_NUM_THREADS"), os.environ.get("TOKENIZERS_PARALLELISM"), ignored


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_results_come_in_order_with_their_notes(processes: int, count: int) -> None:
    with Workers(double, processes) as workers:
        notes = [object() for _ in range(count)]  # not copied: they stay in this process
        found = list(workers.map(enumerate(notes)))
        assert found == [(note, 2 * number) for number, note in enumerate(notes)]
        assert list(workers.map([(7, "again")])) == [("again", 14)]


@pytest.mark.parametrize(("processes", "most"), [(1, 1), (2, 2 * AHEAD + 1)])
def test_the_work_is_read_a_few_pieces_ahead(processes: int, most: int) -> None:
    read = 0

    def work() -> Iterator[tuple[int, int]]:
        nonlocal read
        for number in range(30):
            read += 1
            yield number, number

    with Workers(double, processes) as workers:
        for number, _ in workers.map(work()):
            assert read - number <= most
    assert read == 30


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_function_is_raised_unchanged(processes: int) -> None:
    found = []
    with (
        pytest.raises(CramError, match=r"\Anumber 3: not wanted\ngive another\Z"),
        Workers(refuse, processes) as workers,
    ):
        for note, _ in workers.map((number, number) for number in range(10)):
            found.append(note)
    assert found == [0, 1, 2], "what came before it is not lost"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_work_is_raised_unchanged(processes: int) -> None:
    def work() -> Iterator[tuple[int, None]]:
        yield 1, None
        raise CramError("a broken line")

    with pytest.raises(CramError, match=r"\Aa broken line\Z"), Workers(double, processes) as workers:
        list(workers.map(work()))


@pytest.mark.parametrize("function", [die, use_up])
def test_a_killed_worker_is_reported_with_a_remedy(
    function: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cram.data.preparation.workers.GRACE", 0.0)
    with (
        pytest.raises(
            CramError,
            match=r"\Adata.processes=2: a process that prepares data has ended \(out of memory\?\)\n"
            r"set data.processes lower and run the same command again; it continues where it stopped\.\Z",
        ),
        Workers(function, 2) as workers,
    ):
        list(workers.map((number, None) for number in range(100)))


def test_each_process_has_one_copy_of_the_function() -> None:
    with Workers(Calls(), 2) as workers:
        found = [result for _, result in workers.map((number, None) for number in range(20))]
    processes = {process for process, _ in found}
    assert 1 <= len(processes) <= 2 and os.getpid() not in processes
    for process in processes:
        calls = [call for its, call in found if its == process]
        assert calls == list(range(1, len(calls) + 1))


def test_a_process_uses_one_thread_and_leaves_interrupts_to_its_parent() -> None:
    with Workers(surroundings, 2) as workers:
        assert list(workers.map([(0, None)])) == [
            (None, ("1", "false", {name.name for name in STOP_SIGNALS} - {"SIGTERM"}))
        ]


# The parent waits for its work; the workers wait for the parent, or are busy. Prints the ids of the processes.
ABANDONED = """
import multiprocessing, time
from cram.data.preparation.workers import Workers

def work():
    yield from ((0.01, None) for _ in range(8))
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    for _ in range(3):
        yield {busy}, None
    time.sleep(600)

with Workers(time.sleep, 2) as workers:
    list(workers.map(work()))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("busy", [0.0, 600.0])
def test_workers_end_with_a_parent_that_is_killed(busy: float) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ABANDONED.format(busy=busy)], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout
    with parent.stdout:
        workers = [int(process) for process in parent.stdout.readline().split()]
    assert len(workers) == 2
    family = {process for process in processes() if parent_of(process) == parent.pid}
    assert family >= set(workers)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    patience = time.monotonic() + 20
    while (left := family & processes()) and time.monotonic() < patience:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


# Says that it was interrupted, and nothing else.
INTERRUPTED = """
import signal, sys, time
from cram.data.preparation.workers import Workers

def end(*_):
    raise KeyboardInterrupt

signal.signal(signal.Signals[sys.argv[1]], end)

def work():
    for number in range(9999):
        if number == 8:
            print("begun", flush=True)
        yield 0.01, None

try:
    with Workers(time.sleep, 2) as workers:
        list(workers.map(work()))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGINT"])
def test_a_signal_to_all_processes_is_handled_by_the_parent_only(name: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == "begun\n"
    os.killpg(parent.pid, signal.Signals[name])
    assert parent.communicate()[0] == "interrupted\n"
    assert parent.returncode == 0


def processes() -> set[int]:
    """The processes that are running, without zombies."""
    found = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {process for process in found if state(process)[0] != "Z"}


def parent_of(process: int) -> int:
    return int(state(process)[1])


def state(process: int) -> list[str]:
    """The state and the parent of a process, which follow its name in /proc/PID/stat."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", "0"]
