"""Applies one function to pieces of work as tasks of a Ray cluster; the results come in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from secrets import token_hex
from typing import Any, Generic, Self, TypeVar

from cram.data.cluster.cluster import Cluster
from cram.data.cluster.connection import import_ray
from cram.data.cluster.task import Task, make_remote
from cram.data.cluster.worker import describe_versions, from_bytes, run_piece, to_bytes

Work = TypeVar("Work")
Note = TypeVar("Note")
Result = TypeVar("Result")


class RayMap(Generic[Work, Result]):
    """A function that the cluster holds, once in each process that works for it.

    Args:
        cluster: runs the tasks.
        function: applied to each piece of work; the function, the work and the results must be picklable.
    """

    def __init__(self, cluster: Cluster, function: Callable[[Work], Result]) -> None:
        self._ray = import_ray()
        self._cluster = cluster
        self._remote = make_remote(run_piece)
        reference = self._ray.put(to_bytes(function))
        self._arguments = token_hex(8), [reference], describe_versions()
        self._waiting: deque[tuple[Any, Task]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the tasks whose results were not taken."""
        for _, task in self._waiting:
            task.cancel()
        self._waiting.clear()

    def map(self, work: Iterable[tuple[Work, Note]]) -> Iterator[tuple[Note, Result]]:
        """Apply the function to each piece of work.

        Args:
            work: pieces of work, each with a note that is not sent to the cluster; read a few pieces ahead.

        Yields:
            The note and the result of each piece, in order.

        Raises:
            CramError: a piece has ended several workers, or the cluster was lost. Errors of the function are raised as
                they are.
        """
        for piece, note in work:
            data = self._ray.put(to_bytes(piece))
            self._waiting.append((note, Task(self._cluster, self._remote, *self._arguments, data)))
            if len(self._waiting) >= self._cluster.pieces_ahead():
                yield self._take_first()
        while self._waiting:
            yield self._take_first()

    def _take_first(self) -> tuple[Any, Result]:
        note, task = self._waiting[0]
        result: Result = from_bytes(task.wait())
        self._waiting.popleft()
        return note, result
