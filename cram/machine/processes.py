"""Processes that end with the one that began them, however it ends.

A pipe tells them: the parent holds its write end, which closes with it, and the child waits for the end of what can be
read. A parent that has gone before its child looks has closed it too, so that no moment is missed.
"""

import multiprocessing
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import wait
from typing import IO

# What asks a command to end: a person, a lost terminal, a batch system before its limit, a limit of processor time.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOPPING = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))  # Windows has the first two
VARIABLE = "CRAM_PARENT"


def begin_child(command: Sequence[str], output: IO[str]) -> "subprocess.Popen[bytes]":
    """Begin a command of cram that ends with this process, as after a SIGTERM; it writes to an open file.

    In a group of its own: Ctrl-C would reach it too, and to a run a second signal means "at once".
    """
    pipe = _pipe()
    environment = os.environ | {VARIABLE: str(pipe)}
    return subprocess.Popen(command, stdout=output, stderr=output, process_group=0, pass_fds=[pipe], env=environment)


def end_with_parent() -> None:
    """Have this process end with the one that began it by `begin_child` or as a worker; any other is left alone.

    It is sent a SIGTERM then.
    """
    parent = multiprocessing.parent_process()
    given = _given(os.environ.pop(VARIABLE, ""))  # not for what this process begins
    pipe = parent.sentinel if parent else given
    if pipe is not None:
        threading.Thread(target=_watch, args=(pipe,), name="parent", daemon=True).start()


@cache
def _pipe() -> int:
    """The read end of a pipe that is written to by no one, as long as this process lives."""
    return os.pipe()[0]


def _given(word: str) -> int | None:
    """The pipe that a parent has passed; None where an environment has brought the word from elsewhere."""
    try:
        return int(word) if stat.S_ISFIFO(os.fstat(int(word)).st_mode) else None
    except (OSError, ValueError, OverflowError):
        return None


def _watch(pipe: int) -> None:
    wait([pipe])
    os.kill(os.getpid(), signal.SIGTERM)
