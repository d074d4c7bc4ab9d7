"""When a run writes its page: now and then while it goes on, at its end, and when it is left unfinished."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cram.budget import Budget
from cram.clock import CHARGED, Clock
from cram.config.config import Config
from cram.config.report import PageConfig
from cram.errors import CramError
from cram.training.run_page import RunPage


class Time:
    """A clock that is set by hand, and what was written at which time."""

    def __init__(self) -> None:
        self.now, self.page_seconds = 100.0, 2.0
        self.written: list[tuple[float, Any, int | None, int | None]] = []
        self.error: Exception | None = None

    def __call__(self) -> float:
        return self.now

    def write(self, folder: Path, status: str | None, refresh: int | None, stale: int | None) -> None:
        self.written.append((self.now, status, refresh, stale))
        self.now += self.page_seconds
        if self.error:
            raise self.error


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The clock of a page whose writing takes two seconds."""
    time = Time()
    monkeypatch.setattr("cram.reporting.make.write_run_page", time.write)
    return time


@pytest.fixture
def make_page(time: Time) -> Callable[..., RunPage]:
    """Makes the page of a run whose checkpoints come each minute."""

    def make(**keys: bool) -> RunPage:
        config = Config(report=PageConfig(**keys))
        config.checkpoint.interval = "60s"
        page = RunPage(Path("run"), config, Clock(Budget("wall", 600.0), now=time), now=time)
        return page

    return make


def test_pages_take_three_seconds_and_two_hundredths_of_the_time(time: Time, make_page: Callable[..., RunPage]) -> None:
    with make_page(live=True) as page:
        for _ in range(3000):
            page.write_live()
            time.now += 1.0
        page.write_last()
    *live, last = time.written
    begun = [at for at, *_ in live]
    assert begun[:2] == [100.0, 150.0]  # the second one needs (2 + 2 - 3) / 0.02 = 50 seconds
    assert {after - before for before, after in itertools.pairwise(begun[2:])} <= {100.0, 101.0}
    spent = 2.0 * len(begun)
    assert 0.95 * (3.0 + 0.02 * (time.now - 100.0)) < spent <= 3.0 + 0.02 * (time.now - 100.0)
    assert {status for _, status, *_ in live} == {"running"}
    assert live[0][2:] == (5, 3 * 60 + 60)
    assert live[-1][2:] == (25, 240)
    assert last[1:] == (None, None, None)


@pytest.mark.parametrize(
    ("keys", "statuses"), [({}, []), ({"page": True}, [None]), ({"live": True}, ["running", None])]
)
def test_keys_say_when_a_page_is_written(
    time: Time, make_page: Callable[..., RunPage], keys: dict[str, bool], statuses: list[str | None]
) -> None:
    with make_page(**keys) as page:
        page.write_live()
        page.write_last()
    assert [status for _, status, *_ in time.written] == statuses


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), CramError("no more data")])
def test_a_run_that_is_left_unfinished_has_a_page_that_does_not_load_itself_again(
    time: Time, make_page: Callable[..., RunPage], error: BaseException | None
) -> None:
    try:
        with make_page(live=True) as page:
            page.write_live()
            if error:
                raise error
    except type(error) as raised:  # type: ignore[misc]
        assert raised is error
    assert [line[1:] for line in time.written] == [("running", 5, 240), ("unfinished", None, None)]


def test_a_page_that_cannot_be_written_is_one_warning(
    time: Time, make_page: Callable[..., RunPage], capsys: pytest.CaptureFixture[str]
) -> None:
    time.error = CramError("report.html: the disk is full.")
    with make_page(live=True) as page:
        page.write_live()
        time.now += 1000.0
        page.write_live()
        page.write_last()
    assert len(time.written) == 3
    assert (
        capsys.readouterr().out == "\nwarning: the page of the run cannot be written: report.html: the disk is full.\n"
    )


def test_pages_are_not_charged(time: Time, make_page: Callable[..., RunPage]) -> None:
    clock = Clock(Budget("wall", 600.0), now=time)
    page = RunPage(Path("run"), Config(report=PageConfig(live=True)), clock, now=time)
    with clock.account("updates"):
        time.now += 3.0
        page.write_live()
    assert clock.seconds("report") == 2.0
    assert {name: clock.seconds(name) for name in CHARGED if clock.seconds(name)} == {"updates": 3.0}
