"""Applies one function to many pieces of work in several processes; the results come in order."""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

from cram.errors import CramError
from cram.machine.processes import leave_stop_signals_to_parent, stop_signals_blocked

Work = TypeVar("Work")
Note = TypeVar("Note")
Result = TypeVar("Result")

# Seconds to wait before a dead worker is reported: a signal that ended the workers may be about to reach this process.
GRACE = 0.5
AHEAD = 2  # pieces of work for each process that are waiting or done; this bounds the memory


class Workers(Generic[Work, Result]):
    """A pool of processes that each hold one copy of a function. With one process, the function runs in this one.

    The processes are spawned, because the threads of the tokenizers library do not survive a fork. Each uses one
    thread, and ends when this process ends, for whatever reason.

    Args:
        function: applied to each piece of work; the function, the work and the results must be picklable.
        processes: how many.
    """

    def __init__(self, function: Callable[[Work], Result], processes: int) -> None:
        self._function = function
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers[Work, Result]":
        if self._processes > 1:
            # The process that multiprocessing keeps for its semaphores would ignore two of these signals and die of the
            # others with error messages, so they stay blocked in it.
            with stop_signals_blocked():
                resource_tracker.ensure_running()
            self._pool = ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), _start_worker, (self._function,)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Iterable[tuple[Work, Note]]) -> Iterator[tuple[Note, Result]]:
        """Apply the function to each piece of work.

        Args:
            work: pieces of work, each with a note that is not sent to the processes; read a few pieces ahead.

        Yields:
            The note and the result of each piece, in order.

        Raises:
            CramError: a process has died. Errors of the function are raised as they are.
        """
        if not self._pool:
            for piece, note in work:
                yield note, self._function(piece)
            return
        waiting: deque[tuple[Note, Future[Result]]] = deque()
        try:
            for piece, note in work:
                with stop_signals_blocked():  # the first piece starts the processes, which unblock them when ready
                    waiting.append((note, self._pool.submit(_run, piece)))
                if len(waiting) > AHEAD * self._processes:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for note, future in waiting:
                yield note, future.result()
        except (BrokenProcessPool, MemoryError):
            time.sleep(GRACE)
            raise CramError(
                f"data.processes={self._processes}: a process that prepares data has ended (out of memory?)\n"
                "set data.processes lower and run the same command again; it continues where it stopped."
            ) from None


_function: Callable[[Any], Any]


def _start_worker(function: Callable[[Any], Any]) -> None:
    global _function  # noqa: PLW0603  # one copy in each process, where its tokenizer stays loaded
    _function = function
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    leave_stop_signals_to_parent()


def _run(piece: Any) -> Any:
    return _function(piece)
