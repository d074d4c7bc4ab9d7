"""Budgets, and the clock that spends them.

Progress is the share of the budget that is spent. It drives every schedule, whatever unit the budget has, and it never
falls.

A stall is an update that took far longer than those before it: the process was stopped, or a disk did not answer.
Its excess is charged, but to an account of its own. The excess is not part of the pace, which predicts the end of the
budget. Time during which the machine slept is not charged, because the monotonic clock stands still then.
"""

import re
import statistics
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cram.errors import CramError

SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
CHARGED = ("updates", "compilation", "waiting", "methods", "probe", "crash", "stalls")
NOT_CHARGED = ("preparation", "evaluation", "saving", "export", "asleep", "discarded")
UPDATE_ACCOUNTS = ("updates", "waiting", "methods")  # the accounts that the time of an update is booked to

PACE_UPDATES = 7  # updates that the pace is computed from; after a lasting change, four updates set the new pace
STALL_FACTOR = 3.0  # times the usual pace; another process that takes half of the cores only doubles it
MIN_PACES = 4  # an update is called a stall only after so many paces were learned, the probe's included
MIN_STALL_SECONDS = 1.0  # a shorter excess is not called a stall

_NUMBER = r"(?P<number>\d+(?:\.\d+)?(?:e\+?\d+)?)"
_DURATION = re.compile(_NUMBER + r"(?P<unit>[smhd])")
_COUNT = re.compile(_NUMBER + r"(?P<unit>tokens|steps)")


def parse_duration(text: str, name: str) -> float:
    """Return the seconds of `90s`, `10m`, `24h` or `1d`.

    Args:
        text: the duration.
        name: the key that it is given for, named in the error message.

    Raises:
        CramError: the text is not a duration above zero.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * SECONDS_PER_UNIT[match["unit"]] if match else 0.0
    if not 0.0 < seconds < float("inf"):
        raise CramError(f"{name}={text} is not a valid duration above zero. Write it as 90s, 10m or 24h.")
    return seconds


@dataclass(frozen=True)
class Budget:
    """A limit that is measured by one of three clocks: `wall` in seconds, `tokens` in positions, `steps` in updates."""

    clock: Literal["wall", "tokens", "steps"]
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `90s`, `10m`, `24h`, `2.5e9tokens` or `5000steps`.

        Raises:
            CramError: the text is not a budget.
        """
        count = _COUNT.fullmatch(text.strip())
        if count:
            number = float(count["number"])
            if 1 <= number < float("inf") and number == int(number):
                return cls(count["unit"], number)  # type: ignore[arg-type]
        elif _DURATION.fullmatch(text.strip()):
            return cls("wall", parse_duration(text, "budget"))
        raise CramError(
            f"budget={text} is not a valid budget. Write 90s, 10m or 24h (above zero), 2.5e9tokens or 5000steps"
            f"{_suggestion(text)}."
        )

    def words(self) -> str:
        """Return the budget as text; `parse` reads an equal budget from it."""
        return f"{self.limit:.12g}{'s' if self.clock == 'wall' else self.clock}"


def boot_clock() -> Callable[[], float] | None:
    """Return a clock of the seconds since the machine was started, including time asleep; None if there is none."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


def _suggestion(text: str) -> str:
    """The end of an error message that says how the budget was probably meant; "" if it cannot be guessed."""
    parts = text.strip().split(":")
    if len(parts) in (2, 3) and all(part.isdigit() for part in parts):
        seconds = sum(int(part) * unit for part, unit in zip(reversed(parts), (1, 60, 3600), strict=False))
        return f"; for {text} write {f'{seconds // 60}m' if seconds % 60 == 0 else f'{seconds}s'}"
    tidy = text.strip().replace(" ", "").replace("_", "").lower()
    is_budget = _DURATION.fullmatch(tidy) or _COUNT.fullmatch(tidy)
    return f"; for {text} write {tidy}" if is_budget and tidy != text else ""


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
    """

    def __init__(
        self, budget: Budget, now: Callable[[], float] = time.monotonic, boot: Callable[[], float] | None = None
    ) -> None:
        self.budget = budget
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
        return self.positions if self.budget.clock == "tokens" else self.updates

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
        self._progress = 1.0 if is_last else max(self._progress, after / self.budget.limit)
        return self._progress

    def count_update(self, positions: int) -> None:
        """Count an update of so many positions."""
        self.updates += 1
        self.positions += positions
        self.update_positions = positions

    def begin_updates(self) -> None:
        """Let the next update begin now, not at the end of the last one. It is never called a stall."""
        with self._lock:
            self._settle()
            self._before = {name: self.booked[name] for name in UPDATE_ACCOUNTS}
            self._may_stall = False

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
        self._progress = state["progress"] if state["limit"] == self.budget.limit else 0.0
