import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cram.command import StopSignals, refuse_repeats, run_door
from cram.config.commands import ExportConfig
from cram.errors import CramError
from cram.machine.processes import STOP_SIGNALS, URGENT

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts back the signal handlers that doors set; meanwhile no signal ends the tests."""
    before = {name: signal.getsignal(name) for name in STOP_SIGNALS}
    for name in STOP_SIGNALS:
        signal.signal(name, lambda *_: None)
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def status_of(main: Callable[[list[str]], int | None], words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit status of a door."""
    monkeypatch.setattr(sys, "argv", ["door", *words])
    with pytest.raises(SystemExit) as left:
        run_door(main, ExportConfig, "Does things.")
    return left.value.code


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (130, 130)])
def test_a_door_leaves_with_what_its_command_returns(
    monkeypatch: pytest.MonkeyPatch, returned: int | None, status: int
) -> None:
    said: list[list[str]] = []

    def main(words: list[str]) -> int | None:
        said.append(words)
        return returned

    assert status_of(main, ["run=a", "to=b"], monkeypatch) == status
    assert said == [["run=a", "to=b"]]


def test_a_fault_of_the_user_is_2_and_its_message_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: list[str]) -> int:
        raise CramError("run=a: there is no such folder.")

    assert status_of(main, [], monkeypatch) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "cram: run=a: there is no such folder.\n")


def test_a_key_that_is_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(lambda _: 0, ["run=a", "to=b", "run=c"], monkeypatch) == 2
    assert capsys.readouterr().err == "cram: run= is given twice. Give it once.\n"


def test_a_key_that_a_door_gathers_may_be_given_several_times() -> None:
    words = ["run=a", "to=b", "run=c"]
    refuse_repeats(words, ("run",))
    with pytest.raises(CramError, match="run= is given twice"):
        refuse_repeats(words, ("to",))


@pytest.mark.parametrize("name", STOP_SIGNALS)
def test_an_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: signal.Signals
) -> None:
    def main(_: list[str]) -> int:
        try:
            signal.raise_signal(name)
        finally:  # what comes again by itself does not disturb the end
            if name not in URGENT:
                signal.raise_signal(name)
        return 0

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert status_of(main, [], monkeypatch) == 130
    assert capsys.readouterr().err == "cram: interrupted.\n"


def test_a_limit_of_open_files_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> int:
        raise OSError(errno.EMFILE, "Too many open files", "a.txt")

    assert status_of(main, [], monkeypatch) == 2
    assert "(a.txt). Allow more and run the same command again: ulimit -n" in capsys.readouterr().err


def test_memory_that_is_used_up_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_: list[str]) -> int:
        raise MemoryError

    assert status_of(main, [], monkeypatch) == 2
    assert capsys.readouterr().err.startswith("cram: out of memory.\nChoose smaller values for the large sizes")


@pytest.mark.parametrize(
    ("word", "only_prints", "where", "status"),
    [
        ("a=b", False, ">/dev/full", 0),
        ("a=b", True, ">/dev/full", 2),
        ("a=b", True, ">&-", 2),
        ("a=b", True, "| :; exit ${PIPESTATUS[0]}", 0),
        ("--help", False, ">/dev/full", 2),
        ("--print", False, ">/dev/full", 2),
    ],
)
def test_a_command_that_only_prints_fails_with_its_output(
    word: str, only_prints: bool, where: str, status: int
) -> None:
    code = "from cram.command import run_door\nfrom cram.config.commands import ExportConfig\n"
    code += f"run_door(lambda words: print('x' * 9000), ExportConfig, '', only_prints={only_prints})"
    command = ["bash", "-c", f'"$0" -c "$1" {word} {where}', sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.startswith("cram: standard output cannot be written (")
    assert done.stderr.count("\n") == 1


def test_a_failure_of_ours_is_1_with_a_traceback() -> None:
    code = "from cram.command import run_door\nrun_door(lambda words: 1 // 0, object, '')"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_shows_the_keys_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    def main(_: list[str]) -> int:
        raise AssertionError("the command ran")

    assert status_of(main, ["run=a", word], monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.startswith("Does things.\n")
    assert "  run " in out and "  to " in out


@pytest.mark.parametrize("name", URGENT)
@pytest.mark.parametrize("second", URGENT)
def test_the_first_signal_asks_and_the_second_interrupts(
    name: signal.Signals, second: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with StopSignals() as stop:
        assert not stop.asked
        signal.raise_signal(name)
        assert stop.asked
        assert "the state will be saved" in capsys.readouterr().out
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)


@pytest.mark.parametrize("name", [name for name in STOP_SIGNALS if name not in URGENT])
def test_signals_that_come_again_by_themselves_interrupt_nothing(
    name: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with StopSignals() as stop:
        for _ in range(3):
            signal.raise_signal(name)
        assert stop.asked
        signal.raise_signal(signal.SIGTERM)  # of a batch system, after its warning
        assert capsys.readouterr().out.count("the state will be saved") == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_hangup_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def main(_: list[str]) -> int:
        signal.raise_signal(signal.SIGHUP)
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            return 7 if stop.asked else 0

    assert status_of(main, [], monkeypatch) == 0


def test_a_signal_in_the_middle_of_a_line_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def write(self, _: str) -> None:
            raise RuntimeError("reentrant call inside a buffer")

    monkeypatch.setattr(sys, "stdout", Busy())
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked


def test_the_handlers_before_are_put_back() -> None:
    before = [signal.getsignal(name) for name in STOP_SIGNALS]
    with pytest.raises(RuntimeError), StopSignals():
        assert not set(before) & {signal.getsignal(name) for name in STOP_SIGNALS}
        raise RuntimeError
    assert [signal.getsignal(name) for name in STOP_SIGNALS] == before


def test_in_another_thread_the_handlers_stay() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ask() -> bool:
        with StopSignals() as stop:
            assert signal.getsignal(signal.SIGTERM) is before
            return stop.asked

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ask).result() is False
