"""Where the seconds of a preparation are spent."""

from time import perf_counter

TIMING = "timing.json"
TIMING_REMEDY = "delete it, then the table of times is left out."


class Stopwatch:
    """Adds up seconds by activity. Each lap lasts from the end of the lap before, the first from the construction."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, activity: str) -> None:
        """End a lap: the time since the last one belongs to this activity."""
        now = perf_counter()
        self.seconds[activity] = self.seconds.get(activity, 0.0) + now - self._last
        self._last = now


def add_seconds(total: dict[str, float], more: dict[str, float]) -> None:
    """Add the seconds of each activity in `more` to `total`."""
    for activity, seconds in more.items():
        total[activity] = total.get(activity, 0.0) + seconds
