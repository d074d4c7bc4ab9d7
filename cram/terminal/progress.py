"""Progress shown while a command runs: moving bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_INTERVAL = 10.0  # seconds between two plain lines of one stage


class Stage:
    """A piece of work whose progress is counted. `Progress.stage` makes it.

    The speed, and the time that is left, are counted from the first call of `advance` on. What the first call counts
    may have been done before a restart, and the time before it includes the start of processes.

    Attributes:
        name: what is done.
        total: how many units it is; None if unknown.
        unit: in which the progress is counted.
        done: units, never more than `total`.
    """

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.start_time = self._last_printed = time.monotonic()
        self._first: tuple[int, float] | None = None  # units and time of the first call of advance

    def advance(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self._count(amount)
        if time.monotonic() - self._last_printed >= LINE_INTERVAL:
            self._last_printed = time.monotonic()
            print(f"{self.name}: {self.describe()}", flush=True)

    def describe(self) -> str:
        """Describe how far the work is: units, share, speed and the time that is left, as far as they are known."""
        figures = f"{_format_count(self.done)} {self.unit}"
        if self.total:
            figures += f" ({100 * self.done // self.total}%)"
        done_first, start = self._first or (0, self.start_time)
        counted, seconds = self.done - done_first, time.monotonic() - start
        if counted <= 0 or seconds <= 0:
            return figures
        speed = counted / seconds
        figures += f", {_format_speed(speed, self.unit)}"
        if self.total and self.done < self.total:
            figures += f", {format_duration((self.total - self.done) / speed)} left"
        return figures

    def finish(self) -> None:
        """Print how much was done and how long it took. The work is done, even if a limit has ended it early."""
        seconds = time.monotonic() - self.start_time
        share = " (100%)" if self.total else ""
        print(f"{self.name}: {_format_count(self.done)} {self.unit}{share} in {seconds:.1f} s", flush=True)

    def _count(self, amount: int) -> None:
        self.done += amount
        if self.total is not None:
            self.done = min(self.done, self.total)
        if self._first is None:
            self._first = self.done, time.monotonic()


class _BarStage(Stage):
    """A stage that moves a bar of `rich`."""

    def __init__(self, name: str, total: int | None, unit: str, bar: Any) -> None:
        super().__init__(name, total, unit)
        self._bar = bar
        self._task = bar.add_task(name, total=total)

    def advance(self, amount: int) -> None:
        self._count(amount)
        self._bar.update(self._task, completed=self.done, description=f"{self.name}: {self.describe()}")

    def fill(self) -> None:
        """Move the bar to its end, where a limit has ended the work early."""
        if self.total is not None:
            self._bar.update(self._task, completed=self.total)


class Progress:
    """Shows the stages of a long job: a moving bar on a terminal, a line every ten seconds elsewhere.

    Args:
        terminal: whether to show bars; by default, whether standard output is a terminal.
    """

    def __init__(self, terminal: bool | None = None) -> None:
        self.terminal = sys.stdout.isatty() if terminal is None else terminal

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Stage]:
        """Show a piece of work of `total` units, None if unknown. The `with` block calls `advance`."""
        stage: Stage
        if not self.terminal:
            stage = Stage(name, total, unit)
            yield stage
        else:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            with Bar(*columns, transient=True) as bar:
                stage = bar_stage = _BarStage(name, total, unit, bar)
                yield stage
                bar_stage.fill()
        stage.finish()


class BudgetBar:
    """Shows the progress of a training run: share of the budget, elapsed and remaining time, and the latest figures.

    On a terminal it is one moving line; elsewhere a plain line every `LINE_INTERVAL` seconds.

    Args:
        name: of the run.
        limit: the budget as text.
        terminal: whether to show a bar; by default, whether standard output is a terminal.
    """

    def __init__(self, name: str, limit: str, terminal: bool | None = None) -> None:
        self._name, self._limit = name, limit
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._bar: Any = None
        self._last_printed = 0.0

    def __enter__(self) -> "BudgetBar":
        if self._terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            # The bar takes the space that the figures leave, of the usual eighty columns at least two.
            self._bar = Bar(BarColumn(bar_width=None), TextColumn("{task.description}"), expand=True)
            self._bar.start()
            self._task = self._bar.add_task(f"{self._name}: starting", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, progress: float, figures: dict[str, Any]) -> None:
        """Show the progress, in [0, 1], and a record of training metrics."""
        elapsed = figures["charged_seconds"]
        remaining = format_duration(elapsed * (1 - progress) / progress) if progress else "?"
        loss, pace, rate = figures["loss"], figures["tokens_per_second"], _format_rate(figures["lr"])
        loss = "not finite" if loss is None else f"{loss:.3f}"
        if self._bar:
            text = (
                f"{format_duration(elapsed)}, {remaining} left, loss {loss}, {_format_count(round(pace))} tokens/s, "
                f"{rate}"
            )
            self._bar.update(self._task, completed=progress, description=f"{progress:.1%} {text}")
        elif progress == 1.0 or time.monotonic() - self._last_printed >= LINE_INTERVAL:
            self._last_printed = time.monotonic()
            print(
                f"{self._name}: {progress:.1%} of {self._limit}, {format_duration(elapsed)} elapsed, {remaining} left, "
                f"loss {loss}, {pace:,.0f} tokens/s, {rate}",
                flush=True,
            )


def format_duration(seconds: float) -> str:
    """Format a duration as `0:07`, `12:30` or `23:59:59`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_tokens(number: float) -> str:
    """Format a number of tokens as `1.42 M`, or as `640,000` below a million."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:,.0f}"


def _format_speed(speed: float, unit: str) -> str:
    """Format a speed as `12.3 MB/s`, or as `730 documents/s` or `0.4 updates/s` for other units."""
    if unit == "bytes":
        return f"{speed / 1e6:,.1f} MB/s"
    return f"{_format_count(round(speed)) if speed >= 10 else f'{speed:.1f}'} {unit}/s"


def _format_rate(lr: dict[str, float]) -> str:
    """Format the learning rate of the first group, with the group's name where the groups have different rates."""
    name, rate = next(iter(lr.items()))
    return f"lr {rate:.1e}" if len(set(lr.values())) == 1 else f"lr {name} {rate:.1e}"


def _format_count(number: int) -> str:
    """Format a number as `9999`, `12.3k`, `4.5M` or `6.7G`."""
    for least, size, letter in ((999.95e6, 1e9, "G"), (999.95e3, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= least:
            return f"{number / size:.1f}{letter}"
    return str(number)
