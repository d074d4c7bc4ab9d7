"""When the number of CPU threads is worth another measurement: the updates are slow, or more threads are possible."""

from collections.abc import Hashable

from cram.clock import STALL_FACTOR

SLOW = 0.7  # share of the former pace below which the updates are slow
WINDOW_UPDATES = 10  # updates that a pace is the mean of, where they take WINDOW_SECONDS[0] at least
WINDOW_SECONDS = (2.0, 20.0)  # shortest and longest window; two updates make one, however long they are
# Waits in multiples of the seconds that a measurement takes: measurements then take less than 2% of a run.
FIRST_WAIT, WAIT, LONGEST_WAIT = 10.0, 25.0, 100.0
LEAST_WAIT = 5.0  # seconds


class ThreadWatch:
    """Watches the pace of the updates of one process, and says when the threads shall be measured again.

    A pace is compared with the best one since the last measurement. Only updates of the same `kind` are compared. One
    update that was held up changes little, because it counts for three usual ones at most.

    Args:
        most: the largest number of threads.
        now: charged seconds at the end of the measurement before the first update.
        cost: seconds that it has taken.
    """

    def __init__(self, most: int, now: float, cost: float) -> None:
        self._most = most
        self._kind: Hashable = None
        self._best: float | None = None  # seconds per position
        self._slow = False
        self._measured(now, cost, max(LEAST_WAIT, FIRST_WAIT * cost))

    def _measured(self, now: float, cost: float, wait: float) -> None:
        self._since, self._cost, self._wait = now, cost, wait
        self._kind, self._best, self._slow = None, None, False
        self._begin_window()

    def _begin_window(self) -> None:
        self._updates, self._positions, self._seconds = 0, 0, 0.0

    def count(self, kind: Hashable, positions: int, seconds: float) -> None:
        """Count an update.

        Args:
            kind: what the pace depends on beside the machine: phase, batch size, depth.
            positions: of the update.
            seconds: that it has taken.
        """
        if kind != self._kind:
            self._kind, self._best, self._slow = kind, None, False
            self._begin_window()
        if self._best is not None:
            seconds = min(seconds, STALL_FACTOR * self._best * positions)
        self._updates += 1
        self._positions += positions
        self._seconds += seconds
        shortest, longest = WINDOW_SECONDS
        enough = WINDOW_UPDATES if self._seconds < longest else 2
        if self._updates >= enough and self._seconds >= shortest:
            pace = self._seconds / self._positions
            self._slow = self._best is not None and self._best < SLOW * pace
            self._best = pace if self._best is None else min(self._best, pace)
            self._begin_window()

    def is_due(self, now: float, left: float, threads: int) -> bool:
        """Whether to measure now.

        Fewer threads than the most are measured again even where the pace is as it was: a machine that was busy may be
        free again, which a single thread does not notice.

        Args:
            now: charged seconds.
            left: seconds that are left of the budget. A measurement right before the end is not worth its time.
            threads: the present number.
        """
        waited = now - self._since
        wait = min(self._wait, max(LEAST_WAIT, LONGEST_WAIT * self._cost)) if self._slow else self._wait
        return (self._slow or threads < self._most) and waited >= wait and left >= FIRST_WAIT * self._cost

    def measured(self, now: float, cost: float, changed: bool) -> None:
        """Begin anew after a measurement. The wait doubles as long as nothing changes.

        Args:
            now: charged seconds.
            cost: seconds that the measurement has taken.
            changed: whether it has changed the number of threads.
        """
        least = max(LEAST_WAIT, WAIT * cost)
        self._measured(now, cost, least if changed else max(least, 2.0 * self._wait))
