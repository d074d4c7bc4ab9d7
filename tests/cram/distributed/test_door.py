import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cram import command, fitting, train
from cram.config.commands import ExportConfig
from cram.distributed import door
from cram.distributed.door import close_rank, open_rank, refuse_ranks
from cram.distributed.launch import VARIABLES, Launch
from cram.errors import CramError
from cram.machine.processes import STOP_SIGNALS, URGENT

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import sys
from cram.command import run_door
from cram.config.commands import ExportConfig
run_door(lambda words: print('worked', *words), ExportConfig, 'About.', on_ranks=True)
"""


def as_rank(rank: int, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command that torchrun has started as one of two ranks."""
    values = (str(rank), "2", str(rank), "2", "localhost", "1")
    environment = os.environ | dict(zip(VARIABLES, values, strict=True)) | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-c", CODE, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.mark.parametrize(("word", "shown"), [("--help", "About.\n"), ("--print", "worked --print\n")])
def test_rank_0_alone_shows(word: str, shown: str) -> None:
    first, second = as_rank(0, word), as_rank(1, word)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith(shown)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_variables_that_do_not_fit_are_refused() -> None:
    done = as_rank(0, "run=a", WORLD_SIZE="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cram: a variable of torchrun is not a number: RANK=0, WORLD_SIZE=many")
    assert done.stderr.count("\n") == 1


class Door:
    """A door of a rank in this process: what it prints, and how it ends its rank."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int) -> None:
        self._capsys, self._launch = capsys, Launch(rank, 2, rank, 2, "localhost", 1)
        self.closed: list[tuple[int, str]] = []
        monkeypatch.setattr(command, "read_launch", lambda: self._launch)
        monkeypatch.setattr(command, "open_rank", lambda _: None)
        monkeypatch.setattr(command, "close_rank", self._close)
        monkeypatch.setattr(sys, "argv", ["door", "run=a"])

    def _close(self, launch: Launch, status: int, message: str) -> int:
        assert launch == self._launch
        self.closed.append((status, message))
        return status

    def run(self, error: BaseException | None, on_ranks: bool = True) -> str:
        """Run a command, and return what it has printed on standard error."""

        def main(_: list[str]) -> None:
            if error:
                raise error

        before = [signal.getsignal(name) for name in STOP_SIGNALS]
        with pytest.raises(SystemExit):
            command.run_door(main, ExportConfig, "About.", on_ranks=on_ranks)
        for name, handler in zip(STOP_SIGNALS, before, strict=True):
            signal.signal(name, handler)
        return self._capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "closed", "printed"),
    [
        (None, (0, ""), ""),
        (CramError("run=a: none."), (2, "run=a: none."), "cram: run=a: none.\n"),
        (KeyboardInterrupt(), (130, ""), "cram: interrupted.\n"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_0_says_how_it_ends(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: int,
    error: BaseException | None,
    closed: tuple[int, str],
    printed: str,
) -> None:
    door = Door(monkeypatch, capsys, rank)
    assert door.run(error) == ("" if rank else printed)
    assert door.closed == [closed]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_shows_its_traceback_before_the_rank_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    door = Door(monkeypatch, capsys, rank)
    assert door.run(ZeroDivisionError("by zero")).endswith("ZeroDivisionError: by zero\n")
    [(status, message)] = door.closed
    assert status == 1
    assert message.startswith(f"rank {rank} has failed (ZeroDivisionError: by zero); all ranks end. ")


@pytest.mark.parametrize("rank", [0, 1])
def test_other_commands_are_refused_on_several_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    door = Door(monkeypatch, capsys, rank)
    printed = door.run(None, on_ranks=False)
    assert printed.startswith("cram: torchrun has started this command 2 times, but only cram.train") == (rank == 0)
    assert [status for status, _ in door.closed] == [2]


def test_the_summary_of_a_run_is_left_to_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = fitting.Outcome(Path("run"), {}, 1.0)  # what another rank knows of a finished run
    monkeypatch.setattr(fitting, "fit_config", lambda _: outcome)
    monkeypatch.setattr(train, "read_launch", lambda: Launch(1, 2, 1, 2, "localhost", 1))
    assert train.main(["recipe=bert_demo"]) == 0


def test_a_process_that_is_alone_does_nothing_about_ranks() -> None:
    before = signal.set_wakeup_fd(-1)
    open_rank(Launch())
    assert signal.set_wakeup_fd(before) == -1
    refuse_ranks(Launch())
    assert close_rank(Launch(), 7) == 7


@pytest.mark.parametrize("first", URGENT)
@pytest.mark.parametrize("second", URGENT)
def test_the_second_signal_ends_a_rank_that_is_in_an_exchange(
    monkeypatch: pytest.MonkeyPatch, first: signal.Signals, second: signal.Signals
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(door, "PATIENCE", 0.0)
    for numbers, expected in (([first, signal.SIGUSR1, signal.SIGUSR1], []), ([first, second], [130])):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                theirs.send(bytes(numbers))
            door._count_signals(ours)
        assert ended == expected


def test_a_forked_child_does_not_report_its_signals() -> None:
    """Two workers that are ended by SIGTERM would otherwise end the rank."""
    code = """
import os, signal, time
from cram.distributed import door
from cram.distributed.launch import Launch
door.PATIENCE = 0.0
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
door.open_rank(Launch(size=2))
for _ in range(2):
    child = os.fork()
    if child == 0:
        time.sleep(60)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
time.sleep(0.3)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environment, timeout=60)
    assert done.returncode == 0


def test_torchrun_and_words_that_are_not_valid() -> None:
    """Rank 0 prints one line, all ranks end with status 2, and torchrun with 1."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
    command = [*torchrun, "-m", "cram.train", "recipe=bert_demo", "bdget=1m"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=200)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("cram: ")]
    assert line.startswith("cram: unknown key 'bdget'")
    assert done.stderr.count("exitcode  : 2 ") == 2
