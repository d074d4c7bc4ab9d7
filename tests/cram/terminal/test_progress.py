import re
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
import rich.progress
from hypothesis import given
from hypothesis import strategies as st

from cram.terminal import progress as console
from cram.terminal.progress import BudgetBar, Progress, format_duration, format_tokens


class Time:
    """A clock hand that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    hand = Time()
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=hand))
    return hand


def figures(elapsed: float) -> dict[str, Any]:
    return {"charged_seconds": elapsed, "loss": 5.4321, "tokens_per_second": 12345.6, "lr": {"matrices": 0.001}}


def test_a_stage_says_a_plain_line_every_ten_seconds_and_one_at_the_end(
    time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(terminal=False).stage("tokens", 4_000_000, "tokens") as stage:
        for _ in range(4):
            time.now += 6
            stage.advance(1_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "tokens: 2.0M tokens (50%), 166.7k tokens/s, 0:12 left",
        "tokens: 4.0M tokens (100%), 166.7k tokens/s",
        "tokens: 4.0M tokens (100%) in 24.0 s",
    ]


def test_what_was_done_before_a_restart_has_no_speed(time: Time, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(terminal=False).stage("scanning", 100_000_000, "bytes") as stage:
        time.now += 3
        stage.advance(40_000_000)  # earlier, or while processes were started
        time.now += 10
        stage.advance(20_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "scanning: 60.0M bytes (60%), 2.0 MB/s, 0:20 left",
        "scanning: 60.0M bytes (100%) in 13.0 s",
    ], "a limit has ended it early"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), max_size=20), st.none() | st.integers(0, 300))
def test_percentages_never_fall_and_end_at_100(steps: list[tuple[int, int]], total: int | None) -> None:
    hand = Time()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setattr(console, "time", SimpleNamespace(monotonic=hand))
        with Progress(terminal=False).stage("reading", total, "documents") as stage:
            for seconds, amount in steps:
                hand.now += seconds
                stage.advance(amount)
    lines = out.getvalue().splitlines()
    shares = [int(share) for line in lines for share in re.findall(r"\((\d+)%\)", line)]
    assert len(shares) == (len(lines) if total else 0)
    assert shares == sorted(shares) and all(share <= 100 for share in shares)
    assert not total or shares[-1] == 100
    assert stage.done == (sum(amount for _, amount in steps) if total is None else min(total, stage.done))
    assert all("left" not in line for line in lines if not total or "(100%)" in line)


def test_a_bar_ends_full(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar(rich.progress.Progress):
        def __exit__(self, *args: Any) -> None:
            bars.append(self.tasks[0])
            super().__exit__(*args)

    monkeypatch.setattr(rich.progress, "Progress", Bar)
    with Progress(terminal=True).stage("reading", 50, "documents") as stage:
        stage.advance(20)
    with Progress(terminal=True).stage("reading", None, "documents") as stage:
        stage.advance(20)
    assert [(bar.completed, bar.total) for bar in bars] == [(50, 50), (20, None)]


def test_a_stage_of_unknown_length_has_no_share(time: Time, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(terminal=False).stage("reading", None, "documents") as stage:
        time.now += 10
        stage.advance(12_345)
        time.now += 10
        stage.advance(12_345)
    assert capsys.readouterr().out.splitlines() == [
        "reading: 12.3k documents",
        "reading: 24.7k documents, 1234 documents/s",
        "reading: 24.7k documents in 20.0 s",
    ]


def test_output_that_is_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().stage("reading", 3, "documents") as stage:
        stage.advance(3)
    out = capsys.readouterr().out
    assert out.startswith("reading: 3 documents (100%) in ")
    assert "\x1b" not in out


def test_a_stage_that_fails_does_not_say_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    for terminal in (False, True):
        with pytest.raises(RuntimeError), Progress(terminal).stage("reading", 3, "documents"):
            raise RuntimeError
        assert "reading: 0 documents in" not in capsys.readouterr().out


def test_on_a_terminal_a_bar_moves_and_the_end_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for total in (5, None):
        with Progress(terminal=True).stage("reading", total, "documents") as stage:
            for _ in range(5):
                stage.advance(1)
        assert stage.done == 5
        assert f"reading: 5 documents{' (100%)' if total else ''} in" in capsys.readouterr().out


def test_training_says_where_it_stands_every_ten_seconds_and_at_the_end(
    time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    with BudgetBar("demo", "90s", terminal=False) as bar:
        for elapsed, progress in ((0, 0.0), (9, 0.1), (45, 0.5), (46, 0.51), (90, 1.0)):
            time.now = 100.0 + elapsed
            bar.show(progress, figures(elapsed))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == ("demo: 50.0% of 90s, 0:45 elapsed, 0:45 left, loss 5.432, 12,346 tokens/s, lr 1.0e-03")
    assert [line.split()[1] for line in lines] == ["0.0%", "50.0%", "100.0%"]
    assert "? left" in lines[0]
    assert "0:00 left" in lines[2]


def test_a_loss_that_is_not_finite_is_said_so(time: Time, capsys: pytest.CaptureFixture[str]) -> None:
    for terminal in (False, True):
        time.now += 100.0
        with BudgetBar("demo", "90s", terminal=terminal) as bar:
            bar.show(0.5, figures(45) | {"loss": None})
        assert "loss not finite," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (640_000, "640,000"), (999_999, "999,999"), (1e6, "1.00 M"), (2.5e9, "2500.00 M")]
)
def test_tokens_are_told_in_full_below_a_million(number: float, text: str) -> None:
    assert format_tokens(number) == text


def test_the_end_is_said_even_right_after_another_line(time: Time, capsys: pytest.CaptureFixture[str]) -> None:
    with BudgetBar("demo", "90s", terminal=False) as bar:
        for progress in (0.99, 1.0):
            time.now += 0.1
            bar.show(progress, figures(90))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["99.0%", "100.0%"]


def test_training_on_a_terminal_shows_a_bar_and_all_figures_in_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with BudgetBar("demo", "24h", terminal=True) as bar:
        bar.show(0.5, figures(43_200) | {"tokens_per_second": 999_999.0, "lr": {"matrices": 0.02, "gains": 0.001}})
    line = capsys.readouterr().out.splitlines()[-1]
    assert "50.0% 12:00:00, 12:00:00 left, loss 5.432, 1.0M tokens/s, lr matrices 2.0e-02" in line
    assert len(line) <= 80
    assert "━" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (6.6, "0:07"), (59.7, "1:00"), (750, "12:30"), (3599.6, "1:00:00"), (86399, "23:59:59")],
)
def test_times_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
