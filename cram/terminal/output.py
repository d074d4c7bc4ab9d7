"""Standard output and error that can be lost without ending a command: full disks, closed pipes, gone terminals."""

import io
import os
import select
import sys
from typing import Any, TextIO


class Outlet(io.FileIO):
    """A file to write to, by its number, that is given to the void once it cannot be written.

    `fault` says whether that was not for a reader who had seen enough.
    """

    def __init__(self, number: int, fault: bool = False) -> None:
        super().__init__(number, "w", closefd=False)
        self.fault = fault

    def write(self, data: Any, /) -> int:
        """Write some of `data`, bytes of any kind, and return how many."""
        try:
            while (written := super().write(data)) is None:
                # Another program that shares the pipe has said that nobody waits for it.
                select.select([], [self], [])
        except OSError as error:
            _give_to_void(self.fileno())  # and with it the output of children
            self.fault = not isinstance(error, BrokenPipeError)
            if self.fileno() == 1:
                _say_lost(str(error.strerror))
            return len(data)
        return written


def keep_output() -> None:
    """Make the standard streams of this process such ones. Streams that something else has replaced stay as they are.

    Where the process was started without one of the three, its number is given to the void: otherwise the next file
    that is opened would get that number, and with it all that is printed.
    """
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        _give_to_void(number)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, 2, 2 in closed)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.stdout, 1, 1 in closed)
    if 1 in closed:
        _say_lost("it is closed")


def output_failed() -> bool:
    """Whether some of what was printed is lost, and not because its reader had seen enough."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Outlet) and raw.fault


def _say_lost(reason: str) -> None:
    print(f"cram: standard output cannot be written ({reason}). The command goes on without it.", file=sys.stderr)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _give_to_void(number: int) -> None:
    void = os.open(os.devnull, os.O_RDWR)
    if void != number:
        os.dup2(void, number)
        os.close(void)
    os.set_inheritable(number, True)


def _lasting(before: TextIO | None, number: int, closed: bool) -> TextIO:
    """A stream like the one before. Characters that its encoding lacks are written as escapes."""
    before = before or open(number, "w", closefd=False)  # noqa: SIM115  # as long as the process
    assert isinstance(before, io.TextIOWrapper)
    before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Outlet(number, closed)),
        before.encoding,
        "backslashreplace" if before.errors == "strict" else before.errors,
        line_buffering=before.line_buffering or before.write_through,
    )
