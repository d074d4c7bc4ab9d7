"""The page of a run, which is written from its folder while the run goes on, and when it ends.

A page is for a reader: a run never fails because its page cannot be written, and pages never take much of its time.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from cram.budget import parse_duration
from cram.clock import Clock
from cram.config.config import Config

# What pages may take: so many seconds, since the first ones import libraries, and this share of the time.
FREE_SECONDS, SHARE = 3.0, 0.02
REFRESHES = 4  # a reader's page loads itself again so many times between two pages, as the last two were apart
SHORTEST_REFRESH, LONGEST_REFRESH = 5, 60  # seconds
# A process that was killed leaves a page that says that the run goes on. It is known by its age, because checkpoints
# come with new pages: this many of their intervals and this many seconds.
STALE_INTERVALS, STALE_SECONDS = 3, 60


class RunPage:
    """A context around the training and the end of a run, which keeps report.html in its folder up to date.

    If the context is left without `write_last`, the page says that the run is unfinished.

    Args:
        run: the run folder.
        config: of the run.
        clock: of the run. Pages are booked to its account `report`, which is not charged.
        now: a clock in seconds.
    """

    def __init__(self, run: Path, config: Config, clock: Clock, now: Callable[[], float] = time.monotonic) -> None:
        self._run, self._config, self._clock, self._now = run, config.report, clock, now
        interval = parse_duration(config.checkpoint.interval, "checkpoint.interval")
        self._stale_seconds = round(STALE_INTERVALS * interval + STALE_SECONDS)
        self._started = now()
        self._began_at: float | None = None  # when the latest page was begun
        self._spent = self._latest = 0.0  # seconds that all pages and the latest one have taken
        self._is_last = self._warned = False

    def __enter__(self) -> "RunPage":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._began_at is not None and not self._is_last:
            self._write("unfinished")

    def write_live(self) -> None:
        """Write the page of a run that goes on, if the config asks for it and pages may take the time."""
        before, began = self._began_at, self._now()
        if not self._config.live or self._spent + self._latest > FREE_SECONDS + SHARE * (began - self._started):
            return
        self._began_at = began
        apart = 0.0 if before is None else began - before
        refresh = min(max(round(apart / REFRESHES), SHORTEST_REFRESH), LONGEST_REFRESH)
        self._write("running", refresh)
        self._latest = self._now() - began
        self._spent += self._latest

    def write_last(self) -> None:
        """Write the page of a run that has ended, if the config asks for one."""
        self._is_last = True
        if self._config.enabled:
            self._write(None)

    def _write(self, status: Literal["running", "unfinished"] | None, refresh_seconds: int | None = None) -> None:
        from cram.reporting.make import write_run_page  # templates and pictures take a moment to load

        stale_seconds = None if refresh_seconds is None else self._stale_seconds
        with self._clock.account("report"):
            try:
                write_run_page(self._run, status, refresh_seconds, stale_seconds)
            except Exception as error:
                if not self._warned:
                    print(f"\nwarning: the page of the run cannot be written: {error}", flush=True)
                self._warned = True
