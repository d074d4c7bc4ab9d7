"""A task of a Ray cluster that is given to the cluster again when its worker or its node has died."""

from collections.abc import Callable
from typing import Any

from cram.data.cluster.cluster import Cluster
from cram.data.cluster.connection import import_ray
from cram.data.cluster.nodes import TASK_MEMORY
from cram.errors import CramError

TRIES = 4
WAIT_SECONDS = 1.0  # between two looks at the watch while a result is awaited


def make_remote(function: Callable[..., bytes]) -> Any:
    """Make a remote function that takes one core and the memory of a task.

    Ray does not retry it: its limit would not hold for workers that use too much memory. `Task` does.
    """
    return import_ray().remote(num_cpus=1, memory=TASK_MEMORY, max_retries=0)(function)


class Task:
    """A call of a remote function; it begins at once.

    Args:
        cluster: runs the task.
        remote: made by `make_remote`.
        arguments: of the call; large ones as references, which stay valid for the next try.
    """

    def __init__(self, cluster: Cluster, remote: Any, *arguments: Any) -> None:
        self._ray = import_ray()
        self._cluster = cluster
        self._remote = remote
        self._arguments = arguments
        self._result = remote.remote(*arguments)

    def cancel(self) -> None:
        """End the call if it still runs."""
        if not self._cluster.lost:
            self._ray.cancel(self._result)

    def wait(self) -> bytes:
        """Wait for the result.

        Raises:
            CramError: several workers have died of this call, or the cluster was lost. An error of the function is
                raised as it is.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                return self._wait_once()
            except self._deaths() as error:
                death = type(error).__name__
            if tries_left:
                self._cluster.tasks_lost += 1
                self._result = self._remote.remote(*self._arguments)
        raise CramError(
            f"data.engine=ray: {TRIES} workers that worked on the same documents have ended ({death})\n"
            "if a node lacks memory, set data.processes lower; run the same command again, and it continues where it "
            "stopped."
        )

    def _wait_once(self) -> bytes:
        exceptions = self._ray.exceptions
        while True:
            self._cluster.raise_if_lost()
            try:
                result: bytes = self._ray.get(self._result, timeout=WAIT_SECONDS)
                return result
            except exceptions.GetTimeoutError:
                continue
            except exceptions.RayTaskError as error:
                raise error.cause from None

    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises when a worker, its node, or the result with it was lost."""
        exceptions = self._ray.exceptions
        return (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.LocalRayletDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )
