"""Where the seconds of a preparation went."""

from time import perf_counter

TIMING = "timing.json"
TIMING_REMEDY = "delete it, the figures of the time are left out then"


class Stopwatch:
    """Seconds by activity, each lap from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, activity: str) -> None:
        """Book the time since the last lap."""
        now = perf_counter()
        self.seconds[activity] = self.seconds.get(activity, 0.0) + now - self._last
        self._last = now


def add_seconds(total: dict[str, float], more: dict[str, float]) -> None:
    """Add the seconds of each activity."""
    for activity, seconds in more.items():
        total[activity] = total.get(activity, 0.0) + seconds
