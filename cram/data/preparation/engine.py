"""Where the work of a preparation is done: in processes on this machine, or on a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from cram.config.data import DataConfig
from cram.data.preparation.workers import Workers
from cram.machine.host import cores

Work = TypeVar("Work")
Note = TypeVar("Note")
Result = TypeVar("Result")
Work_contra = TypeVar("Work_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

SMALL_BYTES = 16_000_000  # smaller sources are done before further processes would have started


class OrderedMap(Protocol[Work_contra, Result_co]):
    """Applies one function to pieces of work; see `Workers.map`."""

    def map(self, work: Iterable[tuple[Work_contra, Note]]) -> Iterator[tuple[Note, Result_co]]:
        """Yield the note and the result of each piece, in order."""
        ...


class Engine(Protocol):
    """Runs functions on pieces of work."""

    @property
    def processes(self) -> int:
        """How many pieces are worked on at once; known in the `with` block."""
        ...

    def __enter__(self) -> Self:
        """Connect, and check that the work can be done."""
        ...

    def __exit__(self, *_: object) -> None:
        """Stop what is still running."""
        ...

    def start(self, function: Callable[[Work], Result]) -> AbstractContextManager[OrderedMap[Work, Result]]:
        """Make a map of this function; its copies end with the `with` block."""
        ...

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function once and return its result."""
        ...


class LocalEngine:
    """Runs functions in processes on this machine.

    Args:
        processes: how many. With one, functions run in this process.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, function: Callable[[Work], Result]) -> Workers[Work, Result]:
        """Make a pool of processes that each hold one copy of the function."""
        return Workers(function, self.processes)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in this process."""
        return function(*arguments)


def choose_engine(data: DataConfig, size: int, folder: Path) -> Engine:
    """Return the engine that `data.engine` names.

    Args:
        data: the configuration.
        size: bytes of the source on disk; 0 if it is not known.
        folder: the shard folder, which the nodes of a cluster must share.

    Raises:
        CramError: the engine's package is missing.
    """
    if data.engine == "local":
        return LocalEngine(data.processes or (1 if 0 < size < SMALL_BYTES else cores()))
    from cram.data.cluster.ray_engine import RayEngine  # below `connection`, which says so where Ray is missing

    return RayEngine(data.address, data.processes, folder)
