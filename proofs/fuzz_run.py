"""Running one case of the fuzz proof in a fork of a warm process, and judging its outcome."""

import contextlib
import gc
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
MEMORY = 12 * 2**30  # bytes of address space; torch alone maps several GiB
GOOD_OUTCOMES = ("refused", "accepted", "reported failure")
BAD_OUTCOMES = ("traceback", "signal", "no end", "accepted wrongly")
OUTCOMES = (*GOOD_OUTCOMES, *BAD_OUTCOMES)


@dataclass(frozen=True)
class Result:
    """What a command did.

    Args:
        status: exit status, negative for a signal.
        out: standard output.
        err: standard error.
        timed_out: whether it was killed because its time was over.
        seconds: that it took.
    """

    status: int
    out: str
    err: str
    timed_out: bool
    seconds: float


@dataclass(frozen=True)
class Case:
    """An odd input to a command.

    Args:
        group: class of the case.
        about: what is odd about it.
        make: writes the inputs into an empty folder, the working folder of the command, and returns the name of the
            door followed by its words.
        judge: called if the command ended with status 0. Returns what is wrong with the result, "" if it is right.
        patience: seconds that the command may take.
    """

    group: str
    about: str
    make: Callable[[Path], list[str]]
    judge: Callable[[Path, Result], str]
    patience: float = 60.0


def warm_up() -> None:
    """Import what the commands import, so that every fork has it, with one thread: others do not survive a fork."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import zstandard  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # otherwise a garbage collection in a fork would write to all shared memory, and so copy it


def run_case(case: Case, folder: Path) -> Result:
    """Make a case in a new folder, run it in a fork, and wait for its end."""
    folder.mkdir(parents=True)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(case, folder)
    timed_out = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - start > case.patience:
            timed_out = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # its own child processes
        os.killpg(child, signal.SIGKILL)
    paths = [folder.parent / f"{folder.name}.{name}" for name in ("out", "err")]
    out, err = (path.read_text(errors="replace") if path.exists() else "" for path in paths)
    return Result(os.waitstatus_to_exitcode(status), out, err, timed_out, time.monotonic() - start)


def _run(case: Case, folder: Path) -> None:
    """In the fork: run the command, and end this process with its exit status."""
    status = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        words = case.make(folder)
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(folder.parent / f"{folder.name}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
        sys.argv = [f"cram.{words[0]}", *words[1:]]
        module = "cram.glue.__main__" if words[0] == "glue" else f"cram.{words[0]}"
        for name in (module, "__main__"):
            sys.modules.pop(name, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def judge_case(case: Case, folder: Path, result: Result) -> tuple[str, str]:
    """Return one of OUTCOMES and the reason for it."""
    error_lines = [line for line in result.err.splitlines() if line.strip()]
    last = error_lines[-1] if error_lines else ""
    if result.timed_out:
        return "no end", last
    if result.status < 0:
        return "signal", signal.Signals(-result.status).name
    if "Traceback (most recent call last)" in result.err + result.out:
        return "traceback", last
    if result.status == 2:
        lines = [line for line in error_lines if "warning" not in line.lower()]
        is_proper = 1 <= len(lines) <= 2 and lines[0].startswith("cram: ")
        return ("refused", lines[0]) if is_proper else ("traceback", f"status 2 with {len(lines)} lines: {last}")
    if result.status:
        return "reported failure" if last.startswith("cram: ") else "traceback", f"status {result.status}: {last}"
    try:
        problem = case.judge(folder, result)
    except Exception as error:
        problem = f"the result cannot be read: {error!r}"
    return ("accepted wrongly", problem) if problem else ("accepted", "")


def call_in_fork(function: Callable[[], T]) -> T | None:
    """Call a function in a process of its own. Returns its result, passed as JSON; None if it raises or dies."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                file.write(json.dumps(function()).encode())
                file.flush()
                os._exit(0)
            os._exit(1)
        if os.waitpid(child, 0)[1]:
            return None
        file.seek(0)
        result: T = json.load(file)
        return result


def remove_case(folder: Path) -> None:
    """Remove the folder of a case and the files of its output."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("out", "err"):
        (folder.parent / f"{folder.name}.{name}").unlink(missing_ok=True)
