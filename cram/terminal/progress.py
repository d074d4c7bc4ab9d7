"""What a person sees while waiting: bars on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_INTERVAL = 10.0  # seconds between two plain lines of one stage


class Stage:
    """One piece of work that is being counted; made by `Progress.stage`."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.began = self._said = time.monotonic()

    def advance(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self.done += amount
        if time.monotonic() - self._said >= LINE_INTERVAL:
            self._said = time.monotonic()
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            print(f"{self.name}: {_count(self.done)} {self.unit}{share}", flush=True)

    def finish(self) -> None:
        """Say how long it took."""
        seconds = time.monotonic() - self.began
        print(f"{self.name}: {_count(self.done)} {self.unit} in {seconds:.1f} s", flush=True)


class _BarStage(Stage):
    """A stage that moves a rich bar."""

    def __init__(self, name: str, total: int | None, unit: str, bar: Any) -> None:
        super().__init__(name, total, unit)
        self._bar = bar
        self._task = bar.add_task(name, total=total)

    def advance(self, amount: int) -> None:
        self.done += amount
        self._bar.update(self._task, advance=amount, description=f"{self.name}: {_count(self.done)} {self.unit}")


class Progress:
    """Shows the stages of a long job: a moving bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, terminal: bool | None = None) -> None:
        self.terminal = sys.stdout.isatty() if terminal is None else terminal

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Stage]:
        """Announce a piece of work of `total` units (None: unknown); the body calls `advance`."""
        if not self.terminal:
            stage = Stage(name, total, unit)
            yield stage
        else:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            with Bar(*columns, transient=True) as bar:
                stage = _BarStage(name, total, unit, bar)
                yield stage
        stage.finish()


class BudgetBar:
    """The line under a training run: progress by budget, elapsed, remaining and the latest figures.

    On a terminal it moves in place; elsewhere it is one plain line every `LINE_INTERVAL` seconds.
    """

    def __init__(self, name: str, limit: str, terminal: bool | None = None) -> None:
        self._name, self._limit = name, limit
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._bar: Any = None
        self._said = 0.0

    def __enter__(self) -> "BudgetBar":
        if self._terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            # The bar takes what the figures leave of the line: twelve columns of the usual eighty.
            self._bar = Bar(BarColumn(bar_width=None), TextColumn("{task.description}"), expand=True)
            self._bar.start()
            self._task = self._bar.add_task(f"{self._name}: starting", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, progress: float, figures: dict[str, Any]) -> None:
        """Show progress in [0, 1] and a line of training metrics."""
        elapsed = figures["charged_seconds"]
        remaining = clock_time(elapsed * (1 - progress) / progress) if progress else "?"
        loss, pace, lr = (figures[name] for name in ("loss", "tokens_per_second", "lr"))
        loss = "not finite" if loss is None else f"{loss:.3f}"
        if self._bar:
            text = f"{clock_time(elapsed)}, {remaining} left, loss {loss}, {_count(round(pace))} tokens/s, lr {lr:.1e}"
            self._bar.update(self._task, completed=progress, description=f"{progress:.1%} {text}")
        elif progress == 1.0 or time.monotonic() - self._said >= LINE_INTERVAL:
            self._said = time.monotonic()
            print(
                f"{self._name}: {progress:.1%} of {self._limit}, {clock_time(elapsed)} elapsed, {remaining} left, "
                f"loss {loss}, {pace:,.0f} tokens/s, lr {lr:.2e}",
                flush=True,
            )


def clock_time(seconds: float) -> str:
    """`0:07`, `12:30` or `23:59:59`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tokens(number: float) -> str:
    """`1.42 M`, or `640,000` below a million."""
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number:,.0f}"


def _count(number: int) -> str:
    for least, size, letter in ((999.95e6, 1e9, "G"), (999.95e3, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= least:
            return f"{number / size:.1f}{letter}"
    return str(number)
