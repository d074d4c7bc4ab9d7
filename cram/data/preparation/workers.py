"""One function over many pieces of work on several processes, the results in order."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any, Generic, TypeVar

from cram.errors import CramError
from cram.machine.processes import STOP_SIGNALS, end_with_parent

Work = TypeVar("Work")
Note = TypeVar("Note")
Result = TypeVar("Result")

GRACE = 0.5  # seconds: a signal that ended the workers may still be on its way to this process
AHEAD = 2  # pieces of work that wait or are done for each process: bounds the memory


class Workers(Generic[Work, Result]):
    """A pool whose every process holds one copy of `function`; with one process it runs here instead.

    `function` must be picklable and so must the work and the results. The processes are new ones (spawned: threads
    of the tokenizers would not survive a fork), use one thread each and end with this process, however it ends.
    """

    def __init__(self, function: Callable[[Work], Result], processes: int):
        self._function = function
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers[Work, Result]":
        if self._processes > 1:
            _begin_tracker()
            self._pool = ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), _begin, (self._function,)
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Iterable[tuple[Work, Note]]) -> Iterator[tuple[Note, Result]]:
        """The result for each piece of work, in order, with the piece's note, which stays here.

        `work` is read a few pieces ahead. Raises what the function raises; CramError when a process dies.
        """
        if not self._pool:
            for piece, note in work:
                yield note, self._function(piece)
            return
        waiting: deque[tuple[Note, Future[Result]]] = deque()
        try:
            for piece, note in work:
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
                "set data.processes lower and run the same command again; it continues where it stopped"
            ) from None


def _begin_tracker() -> None:
    """Begin the process that multiprocessing keeps for its semaphores, deaf to what its parent alone must hear.

    By itself it would ignore two of these signals, and die of the others with complaints.
    """
    if hasattr(signal, "pthread_sigmask"):  # Windows has neither
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # as a child inherits it
        try:
            resource_tracker.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_function: Callable[[Any], Any]


def _begin(function: Callable[[Any], Any]) -> None:
    global _function  # noqa: PLW0603  # one copy for each process, where its heavy parts stay loaded
    _function = function
    for name in STOP_SIGNALS:  # what reaches all of a terminal or a job; the parent alone decides
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what ends a pool, or follows the end of the parent
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    end_with_parent()  # left alone it would wait for work forever


def _run(piece: Any) -> Any:
    return _function(piece)
