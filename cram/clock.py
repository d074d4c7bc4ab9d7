"""The one clock: what a budget is, what it has spent, and what was not charged to it.

Progress, the spent share of the budget, drives every schedule, whatever the budget is measured in.
"""

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cram.errors import CramError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
CHARGED = ("updates", "compilation", "waiting", "methods", "probe", "crash")
NOT_CHARGED = ("preparation", "evaluation", "saving", "export")

_NUMBER = r"(?P<number>\d+(?:\.\d+)?(?:e\+?\d+)?)"
_DURATION = re.compile(_NUMBER + r"(?P<unit>[smhd])")
_COUNT = re.compile(_NUMBER + r"(?P<unit>tokens|steps)")


def parse_duration(text: str, name: str) -> float:
    """Seconds of `90s`, `10m`, `24h` or `1d`. Errors: CramError naming the key `name`."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * SECONDS[match["unit"]] if match else 0.0
    if not 0.0 < seconds < float("inf"):
        raise CramError(f"{name}={text} is no duration above zero. Write it as 90s, 10m or 24h.")
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
        raise CramError(f"budget={text} is no budget. Write 90s, 10m or 24h (above zero), 2.5e9tokens or 5000steps.")


class Clock:
    """Spends a budget: counts updates and positions, and books wall time to named accounts.

    One account is open at a time, opened by `account(name)`; opening another inside it pauses the outer
    one, so that no second is booked twice. Time between accounts belongs to nobody. Reading is safe
    from another thread (the heartbeat does it).

    `now` is injectable, so that tests own time.
    """

    def __init__(self, budget: Budget, now: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.updates = 0
        self.positions = 0
        self.booked: dict[str, float] = defaultdict(float)
        self.seconds_per_position: float | None = None
        self._now = now
        self._open: list[str] = []
        self._since = 0.0
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
        now = self._now()
        if self._open:
            self.booked[self._open[-1]] += now - self._since
        self._since = now

    def seconds(self, name: str) -> float:
        """Wall seconds booked to an account so far, an open one included."""
        with self._lock:
            running = self._now() - self._since if self._open and self._open[-1] == name else 0.0
            return self.booked[name] + running

    def charged(self) -> float:
        """Wall seconds that count against a wall-clock budget."""
        return sum(self.seconds(name) for name in CHARGED)

    def spent(self) -> float:
        """What is spent of the budget, in its own unit."""
        return {"wall": self.charged, "tokens": lambda: self.positions, "steps": lambda: self.updates}[
            self.budget.clock
        ]()

    def progress(self) -> float:
        """The spent share of the budget, in [0, 1]."""
        return min(1.0, self.spent() / self.budget.limit)

    def cost(self, positions: int) -> float:
        """What an update of so many positions is expected to spend, in the budget's unit."""
        if self.budget.clock == "wall":
            return positions * (self.seconds_per_position or 0.0)
        return float(positions) if self.budget.clock == "tokens" else 1.0

    def progress_after(self, positions: int, in_flight: int = 0) -> float:
        """Progress at the predicted end of an update; exactly 1.0 if it should be the last.

        It is the last when less than half of another such update would fit behind it, so that a run
        ends within half an update of its budget, on either side. `in_flight` are the positions of updates
        that are counted already and whose time is still to be spent.
        """
        cost = self.cost(positions)
        waited = self.cost(in_flight) if self.budget.clock == "wall" else 0.0
        after = self.spent() + waited + cost
        if after + 0.5 * cost >= self.budget.limit:
            return 1.0
        return after / self.budget.limit

    def count_update(self, positions: int) -> None:
        """Count an update."""
        self.updates += 1
        self.positions += positions

    def learn_pace(self, seconds_per_position: float) -> None:
        """Blend a measured pace into the estimate (exponential average over about five updates)."""
        old = self.seconds_per_position
        self.seconds_per_position = seconds_per_position if old is None else 0.8 * old + 0.2 * seconds_per_position

    def charge_crash(self, charged_at_crash: float) -> None:
        """Book the charged time between the last checkpoint and a crash: lost, but spent."""
        self.booked["crash"] += max(0.0, charged_at_crash - self.charged())

    def state(self) -> dict[str, Any]:
        """All of the clock, as JSON."""
        accounts = {name: self.seconds(name) for name in (*CHARGED, *NOT_CHARGED)}
        return {
            "updates": self.updates,
            "positions": self.positions,
            "booked": accounts,
            "seconds_per_position": self.seconds_per_position,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; what this process has booked already is added to it."""
        self.updates = state["updates"]
        self.positions = state["positions"]
        for name, seconds in state["booked"].items():
            self.booked[name] += seconds
        self.seconds_per_position = state["seconds_per_position"]
