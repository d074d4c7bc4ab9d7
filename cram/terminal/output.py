"""Standard output and error streams that may fail without ending the command.

Output fails when the disk is full, when the reader of a pipe has ended, or when the terminal is gone.
"""

import io
import os
import select
import sys
from typing import Any, TextIO


class FailSafeFile(io.FileIO):
    """An output file, given by its descriptor, that discards all output after the first error.

    `failed` is true after an error, unless the error was that the reader of a pipe has ended.
    """

    def __init__(self, descriptor: int, failed: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failed = failed

    def write(self, data: Any, /) -> int:
        """Write some of `data`, a bytes-like object, and return the number of bytes written."""
        try:
            while (written := super().write(data)) is None:
                # Another program that shares the pipe has made it non-blocking, and it is full.
                select.select([], [self], [])
        except OSError as error:
            _redirect_to_null(self.fileno())  # this includes the output of child processes
            self.failed = not isinstance(error, BrokenPipeError)
            if self.fileno() == 1:
                _report_lost(str(error.strerror))
            return len(data)
        return written


def protect_output() -> None:
    """Let standard output and error use `FailSafeFile`. A stream that was replaced by something else is left alone.

    If the process was started without standard input, output or error, the missing descriptor is opened on the null
    device. Otherwise the next file that is opened would get this descriptor, and everything printed would go into it.
    """
    closed = [descriptor for descriptor in range(3) if not _is_open(descriptor)]
    for descriptor in closed:
        _redirect_to_null(descriptor)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _make_fail_safe(sys.stderr, 2, 2 in closed)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _make_fail_safe(sys.stdout, 1, 1 in closed)
    if 1 in closed:
        _report_lost("it is closed")


def silence_output() -> None:
    """Discard what this process and its children print on standard output from now on."""
    sys.stdout.flush()
    _redirect_to_null(1)


def output_failed() -> bool:
    """Whether standard output was lost for another reason than that the reader of a pipe has ended."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, FailSafeFile) and raw.failed


def _report_lost(reason: str) -> None:
    print(f"cram: standard output cannot be written ({reason}). The command goes on without it.", file=sys.stderr)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)


def _make_fail_safe(stream: TextIO | None, descriptor: int, closed: bool) -> TextIO:
    """A stream with the settings of the given one. Characters that its encoding lacks are escaped."""
    stream = stream or open(descriptor, "w", closefd=False)  # noqa: SIM115 (stays open until the process ends)
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(FailSafeFile(descriptor, closed)),
        stream.encoding,
        "backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )
