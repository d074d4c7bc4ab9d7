"""Budgets: how long a run trains, and in which unit."""

import re
from dataclasses import dataclass
from typing import Literal

from cram.errors import CramError

SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
RST = "rst:"  # begins a budget of reference system time

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
    """A limit that is measured by a clock.

    Attributes:
        clock: `wall` in seconds, `tokens` in positions, `steps` in updates, or `rst` in seconds of a reference machine.
        limit: in the unit of the clock.
    """

    clock: Literal["wall", "tokens", "steps", "rst"]
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `90s`, `10m`, `24h`, `2.5e9tokens`, `5000steps` or `rst:24h`.

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
        elif text.strip().startswith(RST):
            return cls("rst", parse_duration(text.strip().removeprefix(RST), "budget"))
        raise CramError(
            f"budget={text} is not a valid budget. Write 90s, 10m or 24h (above zero), 2.5e9tokens, 5000steps or "
            f"rst:24h{_suggestion(text)}."
        )

    def words(self) -> str:
        """Return the budget as text; `parse` reads an equal budget from it."""
        if self.clock in ("wall", "rst"):
            return f"{RST if self.clock == 'rst' else ''}{self.limit:.12g}s"
        return f"{self.limit:.12g}{self.clock}"


def _suggestion(text: str) -> str:
    """The end of an error message that says how the budget was probably meant; "" if it cannot be guessed."""
    parts = text.strip().split(":")
    if len(parts) in (2, 3) and all(part.isdigit() for part in parts):
        seconds = sum(int(part) * unit for part, unit in zip(reversed(parts), (1, 60, 3600), strict=False))
        return f"; for {text} write {f'{seconds // 60}m' if seconds % 60 == 0 else f'{seconds}s'}"
    tidy = text.strip().replace(" ", "").replace("_", "").lower()
    is_budget = _DURATION.fullmatch(tidy) or _COUNT.fullmatch(tidy)
    return f"; for {text} write {tidy}" if is_budget and tidy != text else ""
