"""One case of the fuzz proof: forked from a warm process, watched, and sorted by what became of it."""

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
MEMORY = 12 * 2**30  # bytes of address space: torch alone maps several
DOORS = ("train", "prepare", "evaluate", "export", "glue", "ablate")
# What became of a case; the last four must not be.
OUTCOMES = ("refused", "accepted", "failed as said", "traceback", "signal", "no end", "accepted wrongly")
BAD = OUTCOMES[3:]


@dataclass(frozen=True)
class Result:
    """What a command did: its exit status, negative for a signal; what it printed; whether its time was up."""

    status: int
    out: str
    err: str
    late: bool
    seconds: float


@dataclass(frozen=True)
class Case:
    """An odd input to a command.

    group: class of the case. about: what is odd. make: writes what it needs into an empty folder, which is the current
    one then, and returns the command's words, its door first. judge: of one that was accepted, what is wrong with it,
    by a rule of its own; nothing where it is right. patience: seconds that it may take.
    """

    group: str
    about: str
    make: Callable[[Path], list[str]]
    judge: Callable[[Path, Result], str]
    patience: float = 60.0


def warm_up() -> None:
    """Import what the commands import, so that a fork has it; one thread, which a fork survives."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import zstandard  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # what is there already is not looked at again in a fork, which would copy its memory


def run_case(case: Case, folder: Path) -> Result:
    """Make a case in a folder, run it in a forked process, and wait for its end."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(case, folder)
    late = False
    while True:
        done, state = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > case.patience:
            late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # what it has begun
        os.killpg(child, signal.SIGKILL)
    texts = [(folder.parent / f"{folder.name}.{name}") for name in ("out", "err")]
    out, err = (path.read_text(errors="replace") if path.exists() else "" for path in texts)
    return Result(os.waitstatus_to_exitcode(state), out, err, late, time.monotonic() - began)


def _run(case: Case, folder: Path) -> None:
    """In the fork: be a command."""
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
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def outcome_of(case: Case, folder: Path, result: Result) -> tuple[str, str]:
    """One of OUTCOMES, and what there is to say of it."""
    said = [line for line in result.err.splitlines() if line.strip()]
    last = said[-1] if said else ""
    if result.late:
        return "no end", last
    if result.status < 0:
        return "signal", signal.Signals(-result.status).name
    if "Traceback (most recent call last)" in result.err + result.out:
        return "traceback", last
    if result.status == 2:
        lines = [line for line in said if "warning" not in line.lower()]
        good = 1 <= len(lines) <= 2 and lines[0].startswith("cram: ")
        return ("refused", lines[0]) if good else ("traceback", f"status 2 with {len(lines)} lines: {last}")
    if result.status:
        return "failed as said" if last.startswith("cram: ") else "traceback", f"status {result.status}: {last}"
    try:
        wrong = case.judge(folder, result)
    except Exception as error:
        wrong = f"what was made cannot be read: {error!r}"
    return ("accepted wrongly", wrong) if wrong else ("accepted", "")


def apart(work: Callable[[], T]) -> T | None:
    """What a function gives in a process of its own, as JSON brings it; None where it raises or the process dies."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                file.write(json.dumps(work()).encode())
                file.flush()
                os._exit(0)
            os._exit(1)
        if os.waitpid(child, 0)[1]:
            return None
        file.seek(0)
        return json.load(file)  # type: ignore[no-any-return]


def clear(folder: Path) -> None:
    """Remove what a case has left."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("out", "err"):
        (folder.parent / f"{folder.name}.{name}").unlink(missing_ok=True)
