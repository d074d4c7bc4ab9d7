"""Turns a page into one HTML file that needs nothing else: no network, no other file."""

import json
import re
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from cram.reporting.page.blocks import Page
from cram.reporting.page.charts import Places, describe_chart, make_keys, write_chart
from cram.reporting.page.scripts import hash_script, write_json
from cram.reporting.pictures.palette import DARK_SERIES, SERIES

SCRIPTS = ("numbers.js", "state.js", "drawing.js", "charts.js", "controls.js", "tables.js", "page.js")  # in this order
MARK = "cram-report"  # of the meta element `generator`, by which a page of ours is known
_ASSETS = files("cram.reporting.page")
_MOST_ID_CHARACTERS = 40
_NOT_IN_PATHS = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # half pairs that stand for no byte of a path


class Names:
    """Ids of the elements of a page: each different, and the same when the page is written again."""

    def __init__(self, taken: list[str]) -> None:
        assert len(set(taken)) == len(taken), f"two sections have the same name: {taken}"
        self._taken = set(taken)

    def make(self, prefix: str, text: str) -> str:
        """Make an id from a text of any characters."""
        words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_MOST_ID_CHARACTERS].strip("-")
        base = name = f"{prefix}-{words}" if words else prefix
        number = 1
        while name in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._taken.add(name)
        return name


def render_page(page: Page) -> str:
    """Write a page as HTML.

    Returns:
        The text of the file. Equal pages give equal texts, and every text encodes to UTF-8.
    """
    for section in page.sections:
        assert re.fullmatch(r"(?!page-)[A-Za-z][A-Za-z0-9-]*", section.name), f"not a name of a section: {section.name}"
    names, places = Names([section.name for section in page.sections]), Places()
    uplot, ours = _read("vendor/uplot/uPlot.iife.min.js"), read_scripts()
    written = datetime.fromtimestamp(page.written, UTC)
    text: str = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            names=names,
            places=places,
            data=[(names.make("data", name), name, write_json(value)) for name, value in page.data.items()],
            mark=MARK,
            policy=make_policy([uplot, ours]),
            styles=[_read("vendor/uplot/uPlot.min.css"), _series_colors(), _read("assets/style.css")],
            uplot=uplot,
            uplot_license=_read("vendor/uplot/LICENSE"),
            uplot_version=json.loads(_read("vendor/uplot/VENDORED.json"))["version"],
            ours=ours,
            written=f"{written:%Y-%m-%d %H:%M:%S} UTC",
            written_iso=written.isoformat(),
        )
    )
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair, as of a path that is not UTF-8


def is_page(start: str) -> bool:
    """Whether a file that begins with these characters, 4,000 suffice, is a page that `render_page` has written."""
    return f'<meta name="generator" content="{MARK}">' in start


def make_policy(scripts: list[str]) -> str:
    """The Content-Security-Policy of a page: these scripts alone may run, and nothing is loaded from anywhere."""
    hashes = " ".join(hash_script(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def read_scripts() -> str:
    """Our own scripts as one, whose names are not visible to others."""
    parts = "\n".join(_read(f"assets/{name}") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();'


def link_to(path: str) -> str:
    """The address of a file beside the page. Never one of another place, or of a script, whatever the path holds."""
    named = _NOT_IN_PATHS.sub("?", path.lstrip("/"))
    quoted = quote(named, safe="/", errors="surrogateescape")
    return f"/{quoted}" if path.startswith("/") else f"./{quoted}"


@cache
def _environment() -> Any:
    """The templates, in which every text is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cram.reporting.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": lambda block: type(block).__name__,
        "link": link_to,
        "keys": make_keys,
        "describe": describe_chart,
        "fail": _fail,
    }
    environment.globals |= {"write_chart": write_chart}
    return environment


def _fail(message: str) -> None:
    raise TypeError(message)


def _series_colors() -> str:
    light, dark = _declare(SERIES), _declare(DARK_SERIES)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root:not(.printing){{{dark}}}}}"


def _declare(colors: tuple[str, ...]) -> str:
    return "".join(f"--series-{number}:{color};" for number, color in enumerate(colors))


@cache
def _read(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")
