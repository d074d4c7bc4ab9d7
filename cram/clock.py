"""The clock that spends a budget.

Progress is the share of the budget that is spent. It drives every schedule, whatever unit the budget has, and it never
falls.

A stall is an update that took far longer than those before it: the process was stopped, or a disk did not answer.
Its excess is charged, but to an account of its own. The excess is not part of the pace, which predicts the end of the
budget. Time during which the machine slept is not charged, because the monotonic clock stands still then.
"""

import statistics
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cram.budget import Budget
from cram.reference_time import ReferenceTime

CHARGED = ("updates", "compilation", "waiting", "methods", "probe", "crash", "stalls")
NOT_CHARGED = ("preparation", "evaluation", "saving", "export", "report", "asleep", "discarded")
UPDATE_ACCOUNTS = ("updates", "waiting", "methods")  # the accounts that the time of an update is booked to

PACE_UPDATES = 7  # updates that the pace is computed from; after a lasting change, four updates set the new pace
STALL_FACTOR = 3.0  # times the usual pace; another process that takes half of the cores only doubles it
MIN_PACES = 4  # an update is called a stall only after so many paces were learned, the probe's included
MIN_STALL_SECONDS = 1.0  # a shorter excess is not called a stall


def boot_clock() -> Callable[[], float] | None:
    """Return a clock of the seconds since the machine was started, including time asleep; None if there is none."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Spends a budget: counts updates and positions, and books wall time to named accounts.

    `account(name)` opens an account. Only one is open at a time: an account that is opened inside another one pauses
    it, so that no second is booked twice. Time outside of all accounts is not booked. Other threads may read the clock,
    as the heartbeat does.

    Args:
        budget: to be spent.
        now: a clock in seconds that stands still while the machine sleeps. Tests pass a clock of their own.
        boot: a clock in seconds that goes on while the machine sleeps, from `boot_clock()`; None if there is none. Then
            time asleep is unknown.
        reference: what measures a budget of reference system time; None for other budgets.
    """

    def __init__(
        self,
        budget: Budget,
        now: Callable[[], float] = time.monotonic,
        boot: Callable[[], float] | None = None,
        reference: ReferenceTime | None = None,
    ) -> None:
        assert (budget.clock == "rst") == (reference is not None)
        self.budget, self.reference = budget, reference
        self.began = 0.0  # how much of the budget, in its unit, was spent before the first update by reference models
        self.reference_updates = self.reference_positions = 0  # of reference models
        self._reference_paces: deque[float] = deque(maxlen=PACE_UPDATES)  # reference seconds per position
        self._reference_before = 0.0  # reference seconds at the end of the last update
        self.updates = 0
        self.positions = 0
        self.update_positions = 0  # positions of the latest update
        self.booked: dict[str, float] = defaultdict(float)
        self.stalls = 0
        self.longest_stall = 0.0
        self._recent: deque[float] = deque(maxlen=PACE_UPDATES)  # seconds per position of the latest updates
        self._progress = 0.0  # the largest progress that was returned
        self._now, self._boot = now, boot
        self._slept = boot() - now() if boot else 0.0
        self._open: list[str] = []
        self._since = 0.0
        self._before = dict.fromkeys(UPDATE_ACCOUNTS, 0.0)  # at the end of the last update
        self._may_stall = False  # whether the current update may be called a stall
        self._lock = threading.Lock()

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Book the time of the `with` block to the account `name`."""
        assert name in CHARGED or name in NOT_CHARGED, name
        with self._lock:
            self._settle()
            self._open.append(name)
        try:
            yield
        finally:
            with self._lock:
                self._settle()
                self._open.pop()

    def _settle(self) -> None:
        if self._boot:
            # In this order, a pause between the two readings makes the difference smaller, never larger.
            slept = self._boot() - self._now()
            self.booked["asleep"] += max(0.0, slept - self._slept)
            self._slept = max(self._slept, slept)
        now = self._now()
        if self._open:
            self.booked[self._open[-1]] += now - self._since
        self._since = now

    def seconds(self, name: str) -> float:
        """Return the wall seconds booked to an account so far, even if it is still open."""
        with self._lock:
            self._settle()
            return self.booked[name]

    def charged(self) -> float:
        """Return the wall seconds that count against a wall-clock budget."""
        with self._lock:
            self._settle()
            return sum(self.booked[name] for name in CHARGED)

    def spent(self) -> float:
        """Return how much of the budget is spent, in its unit."""
        if self.budget.clock == "wall":
            return self.charged()
        if self.reference:
            return self.reference.seconds()
        if self.budget.clock == "tokens":
            return self.positions + self.reference_positions
        return self.updates + self.reference_updates

    def share(self) -> float:
        """Return the spent share of what the budget has left for updates, behind what came before the first one."""
        return (self.spent() - self.began) / max(self.budget.limit - self.began, 1e-9)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Count what the `with` block spends of the budget as spent before the first update."""
        before = self.spent()
        try:
            yield
        finally:
            self.began += self.spent() - before

    def count_reference(self, positions: int) -> None:
        """Count an update of a reference model; it spends a budget of tokens or updates like any other."""
        self.reference_updates += 1
        self.reference_positions += positions

    @property
    def seconds_per_position(self) -> float | None:
        """The pace: mean of the recent updates without those far from their median; None before the first update."""
        if not self._recent:
            return None
        usual = statistics.median_low(self._recent)
        return statistics.fmean(
            pace for pace in self._recent if usual <= STALL_FACTOR * pace and pace <= STALL_FACTOR * usual
        )

    def cost(self, positions: int) -> float:
        """Return how much of the budget an update of so many positions is expected to spend, in the budget's unit."""
        if self.budget.clock == "wall":
            return positions * (self.seconds_per_position or 0.0)
        if self.reference:
            return positions * statistics.fmean(self._reference_paces or [0.0])
        return float(positions) if self.budget.clock == "tokens" else 1.0

    def progress_after(self, positions: int, in_flight: int = 0) -> float:
        """Return the progress at the predicted end of an update, exactly 1.0 if it should be the last one.

        An update is the last if less than half of another such update would fit behind it. A run therefore ends within
        half an update of its budget, before or after it.

        Args:
            positions: of the update.
            in_flight: positions of updates that are counted already, and whose time is still to be spent.
        """
        cost = self.cost(positions)
        pending = self.cost(in_flight) if self.budget.clock == "wall" else 0.0
        after = self.spent() + pending + cost
        is_last = after + 0.5 * cost >= self.budget.limit
        share = (after - self.began) / max(self.budget.limit - self.began, 1e-9)
        self._progress = 1.0 if is_last else max(self._progress, share)
        return self._progress

    def count_update(self, positions: int) -> None:
        """Count an update of so many positions."""
        self.updates += 1
        self.positions += positions
        self.update_positions = positions
        if self.reference:
            spent = self.reference.seconds()
            self.learn_reference_pace((spent - self._reference_before) / positions)
            self._reference_before = spent

    def learn_reference_pace(self, seconds: float) -> None:
        """Learn how many seconds of the reference machine a position takes."""
        self._reference_paces.append(seconds)

    def begin_updates(self) -> None:
        """Let the next update begin now, not at the end of the last one. It is never called a stall."""
        with self._lock:
            self._settle()
            self._before = {name: self.booked[name] for name in UPDATE_ACCOUNTS}
            self._may_stall = False
        if self.reference:
            self._reference_before = self.reference.seconds()

    def end_update(self, positions: int, slow: str = "stalls") -> float:
        """Learn how long an update took, from what was booked since the last one ended.

        Args:
            positions: of the update.
            slow: the account that the excess of a stall is moved to.

        Returns:
            The charged seconds of the update, including the excess.
        """
        with self._lock:
            self._settle()
            by_account = {name: self.booked[name] - self._before[name] for name in UPDATE_ACCOUNTS}
            seconds = sum(by_account.values())
            if self._may_stall:
                self._move_excess(seconds, positions, by_account, slow)
            self._before = {name: self.booked[name] for name in UPDATE_ACCOUNTS}
            self._may_stall = True
        self.learn_pace(seconds, positions)
        return seconds

    def _move_excess(self, seconds: float, positions: int, by_account: dict[str, float], slow: str) -> None:
        """If an update is a stall, move its excess to the account `slow`, first from the accounts with most of it."""
        usual = positions * (self.seconds_per_position or 0.0)
        excess = seconds - usual
        if len(self._recent) < MIN_PACES or seconds <= STALL_FACTOR * usual or excess < MIN_STALL_SECONDS:
            return
        if slow == "stalls":
            self.stalls += 1
            self.longest_stall = max(self.longest_stall, excess)
        self.booked[slow] += excess
        for name in sorted(by_account, key=by_account.__getitem__, reverse=True):
            moved = min(excess, by_account[name])
            self.booked[name] -= moved
            excess -= moved

    def half_update(self) -> float:
        """Return half the cost of an update as large as the latest one, in the budget's unit."""
        return 0.5 * self.cost(self.update_positions)

    def learn_pace(self, seconds: float, positions: int = 1) -> None:
        """Learn the pace from an update, or from a pass of the probe, of so many positions in so many seconds."""
        self._recent.append(seconds / positions)

    def forget_pace(self) -> None:
        """Forget the pace, because the run goes on with another machine."""
        self._recent.clear()

    def charge_crash(self, charged_at_crash: float) -> None:
        """Book the time between the last checkpoint and a crash. Its work is lost, but it is charged."""
        self.booked["crash"] += max(0.0, charged_at_crash - self.charged())

    def state(self) -> dict[str, Any]:
        """Return the state of the clock as plain values. The account `asleep` is None if sleep is unknown."""
        accounts: dict[str, float | None] = {name: self.seconds(name) for name in (*CHARGED, *NOT_CHARGED)}
        if self._boot is None and not accounts["asleep"]:
            accounts["asleep"] = None
        return {
            "limit": self.budget.limit,
            "updates": self.updates,
            "positions": self.positions,
            "update_positions": self.update_positions,
            "booked": accounts,
            "stalls": self.stalls,
            "longest_stall": self.longest_stall,
            "recent": list(self._recent),
            "progress": self._progress,
            "began": self.began,
            "reference_seconds": self.reference.seconds() if self.reference else None,
            "reference_updates": self.reference_updates,
            "reference_positions": self.reference_positions,
            "reference_paces": list(self._reference_paces),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from `state()`, and add what this process has already booked.

        If the state belongs to another limit, progress is computed anew from what is spent.
        """
        self.updates = state["updates"]
        self.positions = state["positions"]
        self.update_positions = state["update_positions"]
        for name, seconds in state["booked"].items():
            self.booked[name] += seconds or 0.0
        self.stalls, self.longest_stall = state["stalls"], state["longest_stall"]
        self._recent.extend(state["recent"])
        self.began = state.get("began", 0.0)  # checkpoints of earlier versions do not have what came later
        self.reference_updates = state.get("reference_updates", 0)
        self.reference_positions = state.get("reference_positions", 0)
        self._reference_paces.clear()
        self._reference_paces.extend(state.get("reference_paces", []))
        self._progress = state["progress"] if state["limit"] == self.budget.limit else 0.0
