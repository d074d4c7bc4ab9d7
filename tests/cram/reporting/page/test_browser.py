"""Pages in Chromium: what runs, what is asked for, and what a reader can do."""

import json
import math
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cram.reporting.page.blocks import (
    Axis,
    Block,
    Cell,
    Chart,
    Code,
    Column,
    Facts,
    Figure,
    Fold,
    Headline,
    Level,
    Mark,
    Page,
    Passage,
    Picture,
    Piece,
    Section,
    Series,
    Table,
    Text,
)
from cram.reporting.page.numbers import format_number
from cram.reporting.page.render import render_page
from cram.reporting.pictures.svg import draw_svg
from proofs.browser import Browser, Tab, find_chromium

HOSTILE = (
    "</script><script>document.title='hacked'</script><img src=http://x.test/ onerror=\"document.title='hacked'\">"
)
SECONDS = [float(second) for second in range(0, 1000, 2)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with Browser(program) as started:
        yield started


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as opened:
        opened.resize(1280)
        yield opened
        assert opened.problems == []
        assert opened.requests == []


def make_chart(title: str = "Loss") -> Chart:
    """Two curves of different places, a gap, a fault and a baseline."""
    train: list[float | None] = [2 + 8 * math.exp(-second / 100) for second in SECONDS]
    train[100:120] = [None] * 20
    x = {"seconds": SECONDS, "tokens": [second * 1000 for second in SECONDS]}
    held_out = {"seconds": [251.0, 501.0], "tokens": [251_000.0, 501_000.0]}
    return Chart(
        title,
        [Axis("seconds", "time charged to the budget, s"), Axis("tokens", "tokens seen")],
        [Series("train", x, train), Series("held-out", held_out, [3.0, 2.5], style="both", color=1)],
        "nats per token",
        marks=[Mark("rollback", {"seconds": 300.0, "tokens": 300_000.0}, "bad")],
        levels=[Level("unigram", 6.9)],
    )


def make_table() -> Table:
    rows = [("b", "1,000", 1000), ("a", "20", 20), ("c", "–", None), ("d", "3", 3)]
    return Table(
        [Column("name"), Column("loss", "nats", numeric=True)],
        [[Cell(name), Cell(text, order)] for name, text, order in rows],
        title="runs",
    )


def open_page(tab: Tab, folder: Path, *shown: Block, **arguments: Any) -> Path:
    """Write a page with these blocks, and open it."""
    page = Page(
        "a page", [Section("one", "One", shown), Section("two", "Two", [make_chart()])], time.time(), **arguments
    )
    path = folder / "page.html"
    path.write_text(render_page(page), encoding="utf-8")
    tab.open(path)
    tab.settle()
    return path


def click(tab: Tab, selector: str) -> None:
    tab.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
    tab.settle()


def column(tab: Tab, number: int) -> list[str]:
    texts: list[str] = tab.evaluate(
        f"[...document.querySelectorAll('tbody tr')].map(row => row.cells[{number}].textContent)"
    )
    return texts


def text_of(tab: Tab, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def shown_range(tab: Tab) -> list[str]:
    """First and last tick that a chart's cursor can reach, by the keys Home and End."""
    ends = []
    tab.evaluate("document.querySelector('#one .plot').focus()")
    for key in ("Home", "End"):
        tab.press(key)
        ends.append(text_of(tab, "#one .readout"))
    return ends


def test_hostile_text_runs_nothing(tab: Tab, tmp_path: Path) -> None:
    chart = make_chart(HOSTILE)
    series = [Series(HOSTILE, chart.series[0].x, chart.series[0].y)]
    chart = Chart(
        HOSTILE, [Axis("seconds", HOSTILE)], series, HOSTILE, [Mark(HOSTILE, {"seconds": 9.0})], [Level(HOSTILE, 3)]
    )
    picture = draw_svg("hostile", lambda _, axes: axes.set(title=HOSTILE, xlabel=HOSTILE))
    open_page(
        tab,
        tmp_path,
        Text(HOSTILE),
        Code(HOSTILE, HOSTILE),
        Headline([Figure(HOSTILE, HOSTILE, HOSTILE, HOSTILE)]),
        Facts([(HOSTILE, HOSTILE)]),
        Table([Column(HOSTILE)], [[Cell(HOSTILE, HOSTILE, link=HOSTILE)], [Cell(HOSTILE)]]),
        chart,
        Picture(HOSTILE, picture, HOSTILE),
        Passage(HOSTILE, [Piece(HOSTILE, HOSTILE)]),
        Fold(HOSTILE, [Text(HOSTILE)], opened=True),
        data={HOSTILE: HOSTILE},
    )
    click(tab, "th button")
    click(tab, ".legend button")
    assert tab.evaluate("document.title") == "a page"
    assert tab.evaluate("document.querySelectorAll('img').length") == 0


def test_the_policy_stops_what_would_get_past_the_escaping(browser: Browser, tmp_path: Path) -> None:
    page = render_page(Page("a page", [Section("one", "One", [Text("here")])], 0.0))
    path = tmp_path / "page.html"
    path.write_text(page.replace("here", HOSTILE), encoding="utf-8")
    with browser.tab() as tab:
        tab.open(path)
        tab.settle()
        assert tab.evaluate("document.title") == "a page"
        assert tab.evaluate("document.querySelectorAll('main img').length") == 1
        assert len(tab.problems) >= 2  # the script and the picture were refused


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_as_wide_as_the_window(tab: Tab, tmp_path: Path, width: int) -> None:
    tab.resize(width)
    wide = Table([Column(f"column {number}") for number in range(30)], [[Cell("value " * 3) for _ in range(30)]] * 2)
    open_page(
        tab, tmp_path, Text("x" * 500), Code("y" * 500), Facts([("z" * 99, "z" * 500)]), wide, make_chart("w" * 200)
    )
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("document.querySelectorAll('.uplot canvas').length") >= 1


def test_tables_are_sorted_by_their_headings(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_table())
    click(tab, "th:nth-child(2) button")
    assert column(tab, 1) == ["3", "20", "1,000", "–"]
    assert tab.evaluate("document.querySelector('th:nth-child(2)').getAttribute('aria-sort')") == "ascending"
    click(tab, "th:nth-child(2) button")
    assert column(tab, 1) == ["1,000", "20", "3", "–"]
    click(tab, "th:nth-child(2) button")
    assert column(tab, 0) == ["b", "a", "c", "d"]
    assert tab.evaluate("document.querySelector('[aria-sort]')") is None


def test_one_choice_of_axis_holds_for_all_charts(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_chart())
    assert text_of(tab, "#one .x-label") == "time charged to the budget"
    click(tab, "input[value=tokens]")
    assert [text_of(tab, f"#{name} .x-label") for name in ("one", "two")] == ["tokens seen"] * 2
    assert shown_range(tab)[1] == "at 998k tokens"


def test_charts_are_used_by_keys(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_chart())
    tab.evaluate("document.querySelector('#one .plot').focus()")
    tab.press("Home")
    assert text_of(tab, "#one .readout") == "at 0 s"
    assert text_of(tab, "#one .last") == "10"
    tab.press("ArrowRight")
    assert text_of(tab, "#one .readout") == "at 2 s"
    assert tab.evaluate("document.querySelector('#one .reset').hidden")
    tab.press("+")
    assert not tab.evaluate("document.querySelector('#one .reset').hidden")
    tab.press("Escape")
    assert tab.evaluate("document.querySelector('#one .reset').hidden")


def test_dragging_zooms_and_a_double_click_goes_back(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_chart())
    box = tab.evaluate(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('#one .u-over').getBoundingClientRect())"
    )
    left, top, width, height = box
    middle = top + height / 2
    tab.mouse("mouseMoved", left + 0.3 * width, middle)
    tab.mouse("mousePressed", left + 0.3 * width, middle, button="left", clickCount=1)
    tab.mouse("mouseMoved", left + 0.5 * width, middle, button="left")
    tab.mouse("mouseReleased", left + 0.5 * width, middle, button="left", clickCount=1)
    tab.settle()
    assert not tab.evaluate("document.querySelector('#one .reset').hidden")
    tab.mouse("mouseMoved", left + 10, middle)
    tab.settle()
    assert text_of(tab, "#one .readout").startswith("at 5")
    for count in (1, 2):
        tab.mouse("mousePressed", left + 9, middle, button="left", clickCount=count)
        tab.mouse("mouseReleased", left + 9, middle, button="left", clickCount=count)
    tab.settle()
    assert tab.evaluate("document.querySelector('#one .reset').hidden")


def test_the_cursor_tells_of_an_event(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_chart())
    box = tab.evaluate("(b => [b.x, b.y, b.width])(document.querySelector('#one .u-over').getBoundingClientRect())")
    tab.mouse("mouseMoved", box[0] + 300 / 998 * box[2], box[1] + 50)
    tab.settle()
    assert text_of(tab, "#one .readout").endswith(" · rollback")


def test_what_the_reader_chose_survives_loading_again(tab: Tab, tmp_path: Path) -> None:
    path = open_page(
        tab, tmp_path, make_table(), Fold("more", [Text("line\n" * 3)]), make_chart(), Text("long " * 9000)
    )
    click(tab, "th button")
    click(tab, "input[value=tokens]")
    click(tab, ".legend button")
    tab.evaluate("document.querySelector('details.fold').open = true")
    tab.settle()
    tab.evaluate("scrollTo(0, 700)")
    tab.settle()
    tab.open(path)
    tab.settle()
    assert column(tab, 0) == ["a", "b", "c", "d"]
    assert tab.evaluate("document.querySelector('input[value=tokens]').checked")
    assert tab.evaluate("document.querySelector('.legend button').getAttribute('aria-pressed')") == "false"
    assert tab.evaluate("document.querySelector('details.fold').open")
    assert tab.evaluate("scrollY") == 700


def test_a_live_page_loads_itself_again_unless_it_is_held(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_chart(), refresh_seconds=1)
    click(tab, "#page-live input")
    tab.evaluate("window.same = true")
    time.sleep(2.2)
    assert tab.evaluate("window.same")
    assert text_of(tab, "#page-live .next") == "Paused."
    click(tab, "#page-live input")
    deadline = time.monotonic() + 10
    while tab.evaluate("window.same") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not tab.evaluate("window.same")
    tab.evaluate("document.readyState")


def test_a_page_that_nothing_writes_any_more_gives_up(tab: Tab, tmp_path: Path) -> None:
    open_page(tab, tmp_path, make_chart(), refresh_seconds=1, stale_seconds=0)
    tab.evaluate("window.same = true")
    time.sleep(2.2)
    assert tab.evaluate("window.same")
    assert "no longer loads itself again" in text_of(tab, "#page-live")


def test_without_scripts_the_last_values_are_shown(tab: Tab, tmp_path: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    page = Page("a page", [Section("one", "One", [make_chart()])], 0.0)
    (tmp_path / "page.html").write_text(render_page(page))
    tab.open(tmp_path / "page.html")
    # The page's own scripts are off; the protocol still evaluates.
    assert text_of(tab, "#one .last") == format_number(2 + 8 * math.exp(-SECONDS[-1] / 100))
    assert "are not drawn" in tab.evaluate("document.body.innerText")
    assert tab.evaluate("document.querySelectorAll('button').length") == 0


def test_a_printed_page_is_light_and_whole(tab: Tab, tmp_path: Path) -> None:
    tab.resize(1280, dark=True)
    open_page(tab, tmp_path, make_chart(), Fold("more", [Text("folded")]))
    tab.resize(800, dark=True, paper=True)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    color = "getComputedStyle(document.documentElement).getPropertyValue('--ink')"
    assert tab.evaluate(color).strip() == "#1a1d21"
    assert tab.evaluate("document.querySelector('details.fold').open")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not tab.evaluate("document.querySelector('details.fold').open")


def test_numbers_have_the_same_digits_in_both_languages_and_ticks_differ(tab: Tab) -> None:
    script = (files("cram.reporting.page") / "assets" / "numbers.js").read_text()
    values = [0, 1.5, -0.25, 999.96, 1000, 12345.6, 99_999.4, 123_456, 1e9, 2.5e12, 3.2e18, 1e-3, 2.5e-5, 1e-12, 7]
    written = tab.evaluate(f"{script}; {json.dumps(values)}.map(formatNumber)")
    assert written == [format_number(value) for value in values]
    ticks = [[0, 8e4, 1e5], [1e5, 1.001e5, 1.002e5], [4.8366, 4.8367], [0, 2.5, 5], [-0.2, 0, 0.2], [0, 1e18], [5]]
    assert tab.evaluate(f"{json.dumps(ticks)}.map((ticks) => formatTicks(ticks).join(' '))") == [
        *("0 80k 100k", "100k 100.1k 100.2k", "4.8366 4.8367", "0 2.5 5", "-0.2 0 0.2", "0 1e18", "5")
    ]
