import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from cram.reporting.page import blocks
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
    Links,
    Mark,
    Page,
    Passage,
    Picture,
    Piece,
    Section,
    Series,
    Side,
    Table,
    Text,
)
from cram.reporting.page.render import is_page, link_to, read_scripts, render_page
from cram.reporting.pictures.svg import draw_svg

HOSTILE = (
    "</script></style>--><script>document.title='hacked'</script><img src=http://x.test onerror=alert(1)>\"' `"
    "\x00\ud800\udc80{{ 1 }}{% raw %}"
)
SVG = draw_svg("drawn", lambda _, axes: axes.plot([1, 2], [3, 4], "o-", label="a"))
ONE_OF_EACH: list[Block] = [
    Text("text"),
    Code("python -m cram.train", "title"),
    Headline([Figure("loss", "3.1", "nats", "detail")]),
    Facts([("name", "value")], "title"),
    Table([Column("a", "unit", True), Column("b")], [[Cell("1", 1, link="x.json"), Cell("2")]] * 2, "title", "note"),
    Chart(
        "title",
        [Axis("seconds", "time, s"), Axis("tokens", "tokens")],
        [Series("train", {"seconds": [1, 2], "tokens": [10, 20]}, [3.5, None])],
        "nats",
        [Mark("fault", {"seconds": 1.5})],
        [Level("unigram", 7.0)],
        description="words",
    ),
    Picture("title", SVG, "description"),
    Passage("title", [Piece("text", "label", before="[CLS]", after="[SEP]")]),
    Links([("name", "file.json", "meaning")], "title"),
    Fold("title", [Text("inside")]),
    Side([Text("left"), Text("right")]),
]


def make_page(*shown: Block, **arguments: Any) -> Page:
    return Page("title", [Section("one", "heading", list(shown))], 1_700_000_000.0, **arguments)


class Reader(HTMLParser):
    """Takes down the elements of a page, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in self.elements]


def texts_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The places of all texts inside of a block that a user's words can come into."""
    if isinstance(value, str):
        if path[-1] not in ("tone", "style", "svg"):  # a choice of the code, and a picture that it has drawn
            yield path, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts_in(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from texts_in(entry, (*path, number))


def replaced(value: Any, path: tuple[Any, ...], text: str) -> Any:
    """A block with another text at a place."""
    if not path:
        return text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{path[0]: replaced(getattr(value, path[0]), path[1:], text)})
    entries = list(value)
    entries[path[0]] = replaced(entries[path[0]], path[1:], text)
    return tuple(entries) if isinstance(value, tuple) else entries


PLACES = [(block, path) for block in ONE_OF_EACH for path, _ in texts_in(block)]


def test_there_is_an_example_of_each_block_with_each_text() -> None:
    """A new block, or a new field of one, must be in `ONE_OF_EACH`, so that the next test sees it."""
    assert {type(block) for block in ONE_OF_EACH} == set(typing.get_args(Block))
    seen: dict[str, set[str]] = {}

    def visit(value: Any) -> None:
        if dataclasses.is_dataclass(value):
            filled = {
                field.name for field in dataclasses.fields(value) if getattr(value, field.name) not in ("", (), [])
            }
            seen.setdefault(type(value).__name__, set()).update(filled)
            for field in dataclasses.fields(value):
                visit(getattr(value, field.name))
        elif isinstance(value, list | tuple):
            for entry in value:
                visit(entry)

    visit(ONE_OF_EACH)
    for name, cls in vars(blocks).items():
        if dataclasses.is_dataclass(cls) and name not in ("Section", "Page"):
            assert seen[name] == {field.name for field in dataclasses.fields(cls)}, name


@pytest.mark.parametrize(
    ("block", "path"), PLACES, ids=lambda value: getattr(type(value), "__name__", "") + str(value)[:40]
)
def test_no_text_becomes_an_element(block: Block, path: tuple[Any, ...]) -> None:
    plain = Reader(render_page(make_page(replaced(block, path, "x"))))
    hostile = Reader(render_page(make_page(replaced(block, path, HOSTILE))))
    assert hostile.shape == plain.shape
    assert hostile.scripts[-2:] == plain.scripts[-2:]


@pytest.mark.parametrize("field", ["title", "subtitle", "data name", "data value", "section title"])
def test_no_text_of_a_page_becomes_an_element(field: str) -> None:
    def page(text: str) -> str:
        kept = make_page(Text("a"))
        changes: dict[str, Any] = {
            "title": {"title": text},
            "subtitle": {"subtitle": text},
            "data name": {"data": {text: 1}},
            "data value": {"data": {"run": {text: [text]}}},
            "section title": {"sections": [Section("one", text, []), Section("two", text, [])]},
        }[field]
        return render_page(dataclasses.replace(kept, **changes))

    assert Reader(page(HOSTILE)).shape == Reader(page("x")).shape
    page(HOSTILE).encode()


def test_scripts_and_links_of_others_are_not_reachable() -> None:
    assert link_to("javascript:alert(1)") == "./javascript%3Aalert%281%29"
    assert link_to("//other.test/x") == "/other.test/x"
    assert link_to("a b/c?#.json") == "./a%20b/c%3F%23.json"
    assert link_to("../run/x") == "./../run/x"
    assert link_to("/tmp/x") == "/tmp/x"


def test_the_page_loads_nothing() -> None:
    text = render_page(make_page(*ONE_OF_EACH, refresh_seconds=20))
    reader = Reader(text)
    for tag, attributes in reader.elements:
        for name in ("src", "srcset", "data", "poster", "action"):
            assert name not in attributes, (tag, attributes)
        if tag == "link":
            assert attributes["href"] == "data:,"
        if tag in ("use", "image"):
            assert (attributes.get("xlink:href") or "").startswith("#")
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles


def test_ids_are_different_and_stay_when_a_page_is_written_again() -> None:
    shown = [*ONE_OF_EACH, *ONE_OF_EACH[:-5], Fold(HOSTILE, [Fold("", [Text("a")])]), Fold("title", [])]
    page = Page(
        "title", [Section("one", "a", shown), Section("title", "b", ONE_OF_EACH[:6])], 0.0, data={"a": 1, "A": 2}
    )
    ids = [attributes["id"] for _, attributes in Reader(render_page(page)).elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert render_page(page) == render_page(page)


def test_sections_have_names_of_their_own() -> None:
    with pytest.raises(AssertionError, match="the same name"):
        render_page(Page("title", [Section("a", "", []), Section("a", "", [])], 0.0))
    with pytest.raises(AssertionError, match="not a name"):
        render_page(Page("title", [Section("page-live", "", [])], 0.0))


def test_an_unknown_block_is_an_error() -> None:
    with pytest.raises(TypeError, match="no template"):
        render_page(make_page(typing.cast(Block, object())))


def test_our_part_of_a_page_is_small() -> None:
    assert len(render_page(make_page()).encode()) < 150_000


def test_json_of_a_page_can_be_read_and_holds_no_nan() -> None:
    value = {"loss": [1.5, float("nan"), float("inf")], "text": "<&>\u2028", "tuple": (1, None)}
    text = render_page(make_page(data={"my run": value}))
    reader = Reader(text)
    numbers = [
        i for i, (_, a) in enumerate(e for e in reader.elements if e[0] == "script") if a.get("data-name") == "my run"
    ]
    assert json.loads(reader.scripts[numbers[0]]) == {
        "loss": [1.5, None, None],
        "text": "<&>\u2028",
        "tuple": [1, None],
    }


def test_places_of_several_series_are_written_once() -> None:
    series = [Series(name, {"seconds": [float(x) for x in range(500)]}, [1.0] * 500) for name in "abc"]
    chart = Chart("title", [Axis("seconds", "time, s")], series, "y")
    assert render_page(make_page(chart)).count("497,498,499") == 1


def test_only_a_live_page_refreshes_itself() -> None:
    assert 'http-equiv="refresh" content="20"' in render_page(make_page(refresh_seconds=20))
    assert "refresh" not in render_page(make_page()).replace(read_scripts(), "")


def test_a_page_of_ours_is_known() -> None:
    assert is_page(render_page(make_page())[:4000])
    assert not is_page("<!doctype html><title>mine</title>")
