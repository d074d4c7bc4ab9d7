"""A Ray cluster at work: what it can do at once, what it has lost, and whether it is still there."""

import time

from cram.data.cluster.connection import import_ray
from cram.data.cluster.head_watch import HeadWatch
from cram.data.cluster.nodes import count_tasks, living_nodes
from cram.errors import CramError

AHEAD = 2  # pieces of work for each task that are waiting or done; this bounds the memory
PIECE_BYTES = 8_000_000  # of a piece and its result in the object store
EMPTY_SECONDS = 60.0  # for which a cluster without nodes is waited for
REFRESH_SECONDS = 2.0  # between two counts of the nodes, which may die or join


class Cluster:
    """The cluster that this process is connected to.

    Args:
        most: tasks that may run at once; None means as many as there are cores and memory for.

    Attributes:
        processes: tasks that run at once.
        tasks_lost: how many tasks were given to the cluster again, because their worker or node had died.
    """

    def __init__(self, most: int | None) -> None:
        context, nodes = import_ray().get_runtime_context(), living_nodes()
        own = next(node for node in nodes if node["NodeID"] == context.get_node_id())
        self._watch = HeadWatch([context.gcs_address, f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}"])
        self._most = most
        self._counted = 0.0  # when the nodes were counted
        self._last_with_nodes = time.monotonic()
        self._ahead = 1
        self.processes = 1
        self.tasks_lost = 0
        self._count_nodes()

    @property
    def lost(self) -> bool:
        """Whether the head of the cluster was lost."""
        return self._watch.lost

    def raise_if_lost(self) -> None:
        """Do nothing as long as the cluster is there.

        Raises:
            CramError: it was lost, or all its nodes were.
        """
        self._watch.raise_if_lost()
        self._count_nodes()
        if time.monotonic() > self._last_with_nodes + EMPTY_SECONDS:
            raise CramError(
                f"data.engine=ray: the cluster has had no node that can run a task for {EMPTY_SECONDS:.0f} seconds\n"
                "add one with: ray start --address=HOST:PORT, and give the same command; it continues where it stopped."
            )

    def leave(self) -> None:
        """Leave the cluster, which ends the tasks that still run; Ray that was started here ends."""
        self._watch.stop()
        if self.tasks_lost:
            print(
                f"data.engine=ray: {self.tasks_lost} task(s) of workers or nodes that ended were done again", flush=True
            )
        if not self.lost:  # Ray would wait for a lost head
            import_ray().shutdown()

    def pieces_ahead(self) -> int:
        """Return how many pieces may be waiting or done: enough for every task, and with room in the object store."""
        self._count_nodes()
        return self._ahead

    def _count_nodes(self) -> None:
        if time.monotonic() > self._counted + REFRESH_SECONDS and (nodes := living_nodes()):
            self._counted = time.monotonic()
            tasks = sum(map(count_tasks, nodes))
            if tasks:
                self._last_with_nodes = self._counted
            self.processes = max(1, min(tasks, self._most or tasks))
            store = int(min(node["Resources"].get("object_store_memory", 0) for node in nodes))
            ahead = AHEAD * self.processes if self.processes == tasks else self.processes
            self._ahead = max(1, min(ahead, store // PIECE_BYTES))
