"""Notices that the head of a Ray cluster, or the own node, was lost."""

import os
import sys
import threading

from cram.data.cluster.connection import is_reachable
from cram.errors import CramError

LOOK_SECONDS = 2.0
LOST_LOOKS = 5  # looks in a row that reached nothing
GRACE = 10.0  # seconds in which the main thread may end the work in its own way


class HeadWatch:
    """A thread that opens a connection to some addresses every two seconds.

    Ray tries to reach a lost head for a minute and then ends the process without a message, and a call of Ray may not
    return at all when the own node is lost. So the watch ends the process itself if the main thread does not call
    `raise_if_lost` soon after the loss. What the preparation keeps on the disk is complete at any moment.

    Args:
        addresses: HOST:PORT of the head and of the own node.

    Attributes:
        lost: whether one of the addresses cannot be reached any more.
    """

    def __init__(self, addresses: list[str]) -> None:
        self.lost = False
        self._addresses = addresses
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="head of the cluster", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._ended.set()

    def raise_if_lost(self) -> None:
        """Do nothing as long as the cluster is there.

        Raises:
            CramError: it was lost.
        """
        if self.lost:
            self.stop()
            raise self._error()

    def _error(self) -> CramError:
        return CramError(
            f"data.engine=ray: the head of the cluster or this node was lost ({' or '.join(self._addresses)})\n"
            "start the cluster again and give the same command; it continues where it stopped."
        )

    def _look(self) -> None:
        failures = 0
        while failures < LOST_LOOKS:
            if self._ended.wait(LOOK_SECONDS):
                return
            failures = 0 if all(map(is_reachable, self._addresses)) else failures + 1
        self.lost = True
        if not self._ended.wait(GRACE):
            print(f"cram: {self._error()}", file=sys.stderr, flush=True)
            os._exit(2)
