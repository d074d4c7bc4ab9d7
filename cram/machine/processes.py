"""Child processes that end when their parent ends, for whatever reason it ends.

The parent holds the write end of a pipe and never writes. When the parent ends, the system closes the pipe, and the
child, which waits for the end of the pipe, learns of it. This also works if the parent ends before the child looks.
"""

import multiprocessing
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import wait
from typing import IO

# Signals that ask a command to end. They come from a person, a lost terminal, a batch system shortly before its time
# limit, or the limit of processor time. Windows has only the first two.
STOP_SIGNAL_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOP_SIGNALS = tuple(signal.Signals[name] for name in STOP_SIGNAL_NAMES if hasattr(signal, name))
# The second one of these stops at once. Other signals are repeated by the system, SIGXCPU each second.
URGENT = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit status after a signal to stop
PIPE_VARIABLE = "CRAM_PARENT"  # the environment variable that passes the pipe's descriptor to the child


def start_child(command: Sequence[str], output: IO[str]) -> "subprocess.Popen[bytes]":
    """Start a command of cram that receives a SIGTERM when this process ends.

    The child is in a process group of its own. Otherwise Ctrl-C would reach it as well as this process, and a run that
    receives a second signal stops at once, without saving.

    Args:
        command: the words of the command.
        output: an open file, which receives standard output and error.
    """
    pipe = _pipe()
    environment = os.environ | {PIPE_VARIABLE: str(pipe)}
    return subprocess.Popen(command, stdout=output, stderr=output, process_group=0, pass_fds=[pipe], env=environment)


def end_with_parent() -> None:
    """Let this process receive a SIGTERM when its parent ends.

    This applies to processes that `start_child` or `multiprocessing` started. In any other process nothing happens.
    """
    parent = multiprocessing.parent_process()
    passed = _passed_pipe(os.environ.pop(PIPE_VARIABLE, ""))  # removed, so that children of this process do not see it
    pipe = parent.sentinel if parent else passed
    if pipe is not None:
        threading.Thread(target=_watch, args=(pipe,), name="parent", daemon=True).start()


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals in the `with` body, and in the processes that it starts, which inherit the mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows has none
        yield
        return
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def leave_stop_signals_to_parent() -> None:
    """Let this worker process ignore the stop signals, apart from SIGTERM, and end when its parent ends.

    The signals reach every process of a terminal or a job, and the parent decides what to do. It ends its workers by a
    SIGTERM. Signals that `stop_signals_blocked` has blocked meanwhile arrive now.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    end_with_parent()


@cache
def _pipe() -> int:
    """The read end of a pipe that stays open, and is never written to, as long as this process lives."""
    return os.pipe()[0]


def _passed_pipe(word: str) -> int | None:
    """The descriptor of the pipe that a parent has passed; None if the variable does not name an open pipe."""
    try:
        return int(word) if stat.S_ISFIFO(os.fstat(int(word)).st_mode) else None
    except (OSError, ValueError, OverflowError):
        return None


def _watch(pipe: int) -> None:
    wait([pipe])
    os.kill(os.getpid(), signal.SIGTERM)
