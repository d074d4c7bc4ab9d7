"""The one clock: what a budget is, what it has spent, and what was not charged to it.

Progress, the spent share of the budget, drives every schedule, whatever the budget is measured in. It never falls.

A stall is an update that took far longer than the ones before it: the process was stopped, or a disk did not answer.
Its excess is charged to an account of its own and left out of the pace, by which the end of the budget is predicted.
Time in which the machine slept is not charged, because the monotonic clock stands still then.
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

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
CHARGED = ("updates", "compilation", "waiting", "methods", "probe", "crash", "stalls")
NOT_CHARGED = ("preparation", "evaluation", "saving", "export", "asleep", "discarded")
# The accounts that an update's own time goes to.
IN_UPDATES = ("updates", "waiting", "methods")

RECENT = 7  # updates that the pace is taken from: a lasting change is learned after four
FAR = 3.0  # times the usual pace; another process that takes half of the cores doubles it
ENOUGH = 4  # paces that must be known, the probe's included, before an update is called a stall
STALL_SECONDS = 1.0  # a shorter excess is not worth a name

_NUMBER = r"(?P<number>\d+(?:\.\d+)?(?:e\+?\d+)?)"
_DURATION = re.compile(_NUMBER + r"(?P<unit>[smhd])")
_COUNT = re.compile(_NUMBER + r"(?P<unit>tokens|steps)")


def parse_duration(text: str, name: str) -> float:
    """Seconds of `90s`, `10m`, `24h` or `1d`. Errors: CramError naming the key `name`."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * SECONDS[match["unit"]] if match else 0.0
    if not 0.0 < seconds < float("inf"):
        raise CramError(f"{name}={text} is not a valid duration above zero. Write it as 90s, 10m or 24h.")
    return seconds


@dataclass(frozen=True)
class Budget:
    """A limit on one of three clocks: `wall` in seconds, `tokens` in positions, `steps` in updates."""

    clock: Literal["wall", "tokens", "steps"]
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `90s`, `10m`, `24h`, `2.5e9tokens` or `5000steps`. Errors: CramError."""
        count = _COUNT.fullmatch(text.strip())
        if count:
            number = float(count["number"])
            if 1 <= number < float("inf") and number == int(number):
                return cls(count["unit"], number)  # type: ignore[arg-type]
        elif _DURATION.fullmatch(text.strip()):
            return cls("wall", parse_duration(text, "budget"))
        raise CramError(
            f"budget={text} is not a valid budget. Write 90s, 10m or 24h (above zero), 2.5e9tokens or 5000steps"
            f"{_meant(text)}."
        )

    def words(self) -> str:
        """The text that `parse` makes an equal budget of."""
        return f"{self.limit:.12g}{'s' if self.clock == 'wall' else self.clock}"


def boot_clock() -> Callable[[], float] | None:
    """Seconds since the machine was started, time asleep included; None where the platform does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


def _meant(text: str) -> str:
    """What a budget that cannot be read was probably meant to be, for a message."""
    parts = text.strip().split(":")
    if len(parts) in (2, 3) and all(part.isdigit() for part in parts):
        seconds = sum(int(part) * unit for part, unit in zip(reversed(parts), (1, 60, 3600), strict=False))
        return f"; for {text} write {f'{seconds // 60}m' if seconds % 60 == 0 else f'{seconds}s'}"
    tidy = text.strip().replace(" ", "").replace("_", "").lower()
    return (
        f"; for {text} write {tidy}" if tidy != text and (_DURATION.fullmatch(tidy) or _COUNT.fullmatch(tidy)) else ""
    )


class Clock:
    """Spends a budget: counts updates and positions, and books wall time to named accounts.

    One account is open at a time, opened by `account(name)`; opening another inside it pauses the outer
    one, so that no second is booked twice. Time between accounts belongs to nobody. Reading is safe
    from another thread (the heartbeat does it).

    Args:
        now: seconds of a clock that stands still while the machine sleeps; injectable, so that tests own time.
        boot: seconds of one that does not, as `boot_clock()` gives it; None where sleep cannot be told.
    """

    def __init__(
        self, budget: Budget, now: Callable[[], float] = time.monotonic, boot: Callable[[], float] | None = None
    ) -> None:
        self.budget = budget
        self.updates = 0
        self.positions = 0
        self.update_positions = 0  # of the latest update
        self.booked: dict[str, float] = defaultdict(float)
        self.stalls = 0
        self.longest_stall = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)  # seconds per position
        self._progress = 0.0  # the largest that was given
        self._now, self._boot = now, boot
        self._slept = boot() - now() if boot else 0.0
        self._open: list[str] = []
        self._since = 0.0
        self._before = dict.fromkeys(IN_UPDATES, 0.0)  # what they held when the last update ended
        self._judged = False
        self._lock = threading.Lock()

    @contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Book the time of the `with` body to the account `name`."""
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
            # Read in this order, a pause between the two readings makes the difference smaller, never larger.
            slept = self._boot() - self._now()
            self.booked["asleep"] += max(0.0, slept - self._slept)
            self._slept = max(self._slept, slept)
        now = self._now()
        if self._open:
            self.booked[self._open[-1]] += now - self._since
        self._since = now

    def seconds(self, name: str) -> float:
        """Wall seconds booked to an account so far, an open one included."""
        with self._lock:
            self._settle()
            return self.booked[name]

    def charged(self) -> float:
        """Wall seconds that count against a wall-clock budget."""
        with self._lock:
            self._settle()
            return sum(self.booked[name] for name in CHARGED)

    def spent(self) -> float:
        """What is spent of the budget, in its own unit."""
        if self.budget.clock == "wall":
            return self.charged()
        return self.positions if self.budget.clock == "tokens" else self.updates

    @property
    def seconds_per_position(self) -> float | None:
        """The pace: the mean of the recent updates but for those far from their median; None before the first."""
        if not self._recent:
            return None
        usual = statistics.median_low(self._recent)
        return statistics.fmean(pace for pace in self._recent if usual <= FAR * pace and pace <= FAR * usual)

    def cost(self, positions: int) -> float:
        """What an update of so many positions is expected to spend, in the budget's unit."""
        if self.budget.clock == "wall":
            return positions * (self.seconds_per_position or 0.0)
        return float(positions) if self.budget.clock == "tokens" else 1.0

    def progress_after(self, positions: int, in_flight: int = 0) -> float:
        """Progress at the predicted end of an update; exactly 1.0 if it should be the last, and never less than before.

        It is the last when less than half of another such update would fit behind it, so that a run
        ends within half an update of its budget, on either side. `in_flight` are the positions of updates
        that are counted already and whose time is still to be spent.
        """
        cost = self.cost(positions)
        waited = self.cost(in_flight) if self.budget.clock == "wall" else 0.0
        after = self.spent() + waited + cost
        last = after + 0.5 * cost >= self.budget.limit
        self._progress = 1.0 if last else max(self._progress, after / self.budget.limit)
        return self._progress

    def count_update(self, positions: int) -> None:
        """Count an update."""
        self.updates += 1
        self.positions += positions
        self.update_positions = positions

    def begin_updates(self) -> None:
        """Begin the next update here, not where the last one ended. It may be slow without being called a stall."""
        with self._lock:
            self._settle()
            self._before = {name: self.booked[name] for name in IN_UPDATES}
            self._judged = False

    def end_update(self, positions: int, slow: str = "stalls") -> float:
        """Learn how long an update of so many positions took, from the accounts that grew since the last one ended.

        The excess of one that took far too long is moved to the account `slow`.

        Returns: its charged seconds, the excess included.
        """
        with self._lock:
            self._settle()
            grown = {name: self.booked[name] - self._before[name] for name in IN_UPDATES}
            seconds = sum(grown.values())
            if self._judged:
                self._move_excess(seconds, positions, grown, slow)
            self._before = {name: self.booked[name] for name in IN_UPDATES}
            self._judged = True
        self.learn_pace(seconds, positions)
        return seconds

    def _move_excess(self, seconds: float, positions: int, grown: dict[str, float], slow: str) -> None:
        """Move what a slow update took beyond the usual, from those accounts first that grew most."""
        usual = positions * (self.seconds_per_position or 0.0)
        excess = seconds - usual
        if len(self._recent) < ENOUGH or seconds <= FAR * usual or excess < STALL_SECONDS:
            return
        if slow == "stalls":
            self.stalls += 1
            self.longest_stall = max(self.longest_stall, excess)
        self.booked[slow] += excess
        for name in sorted(grown, key=grown.__getitem__, reverse=True):
            moved = min(excess, grown[name])
            self.booked[name] -= moved
            excess -= moved

    def half_update(self) -> float:
        """Half of an update as large as the latest, in the budget's unit."""
        return 0.5 * self.cost(self.update_positions)

    def learn_pace(self, seconds: float, positions: int = 1) -> None:
        """Learn from an update, or a pass as a probe makes it, of so many positions in so many seconds."""
        self._recent.append(seconds / positions)

    def forget_pace(self) -> None:
        """Forget what was learned of the pace: on another machine."""
        self._recent.clear()

    def charge_crash(self, charged_at_crash: float) -> None:
        """Book the charged time between the last checkpoint and a crash: lost, but spent."""
        self.booked["crash"] += max(0.0, charged_at_crash - self.charged())

    def state(self) -> dict[str, Any]:
        """All of the clock, as JSON. Time asleep is None where it cannot be told."""
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
        """Continue from `state()`; what this process has booked already is added to it.

        Of another limit, progress begins where what is spent stands.
        """
        self.updates = state["updates"]
        self.positions = state["positions"]
        self.update_positions = state["update_positions"]
        for name, seconds in state["booked"].items():
            self.booked[name] += seconds or 0.0
        self.stalls, self.longest_stall = state["stalls"], state["longest_stall"]
        self._recent.extend(state["recent"])
        self._progress = state["progress"] if state["limit"] == self.budget.limit else 0.0
