"""A Ray cluster as the engine of a preparation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from cram.data.cluster.cluster import Cluster
from cram.data.cluster.connection import connect, import_ray
from cram.data.cluster.nodes import check_nodes
from cram.data.cluster.ray_map import RayMap
from cram.data.cluster.task import Task, make_remote
from cram.data.cluster.worker import call, from_bytes, to_bytes

Work = TypeVar("Work")
Result = TypeVar("Result")


class RayEngine:
    """Runs functions as tasks on the nodes of a Ray cluster. A worker or a node that dies loses its tasks only.

    Args:
        address: of the cluster; see `connect`.
        processes: pieces that are worked on at once; None means as many as the cluster has cores and memory for.
        folder: the shard folder. Its parent must be shared by all nodes.

    Raises:
        CramError: Ray is not installed.
    """

    def __init__(self, address: str, processes: int | None, folder: Path) -> None:
        self._ray = import_ray()
        self._address = address
        self._most = processes
        self._folder = folder.parent.absolute()
        self._joined: Cluster | None = None

    def __enter__(self) -> Self:
        """Connect to the cluster and check its nodes.

        Raises:
            CramError: the cluster cannot be reached, has other versions, no node has enough memory, or the nodes do
                not share the folder.
        """
        connect(self._address, self._most)
        try:
            self._joined = Cluster(self._most)
            check_nodes(self._address, self._folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster."""
        if self._joined:
            self._joined.leave()
        else:
            self._ray.shutdown()

    @property
    def _cluster(self) -> Cluster:
        assert self._joined, "the engine is entered first"
        return self._joined

    @property
    def processes(self) -> int:
        """How many tasks run at once."""
        return self._cluster.processes

    @property
    def tasks_lost(self) -> int:
        """How many tasks were given to the cluster again, because their worker or node had died."""
        return self._cluster.tasks_lost

    def start(self, function: Callable[[Work], Result]) -> RayMap[Work, Result]:
        """Make a map of this function, which is sent to the cluster once."""
        return RayMap(self._cluster, function)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function once, as a task, and return its result."""
        reference = self._ray.put(to_bytes(partial(function, *arguments)))
        result: Result = from_bytes(Task(self._cluster, make_remote(call), reference).wait())
        return result
