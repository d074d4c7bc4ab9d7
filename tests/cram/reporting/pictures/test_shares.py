"""Bars that show what a whole is made of."""

import re

import pytest

from cram.reporting.pictures.shares import REST, draw_shares


@pytest.fixture(scope="module")
def svg() -> str:
    """Return two bars, whose parts are partly the same, partly small, and partly nothing."""
    bars = [
        ("charged", {"updates": 90.0, "probe": 8.0, "waiting": 0.4, "methods": 0.3, "crash": 0.0}),
        ("not charged", {"probe": 20.0, "<b>$part</b>$": 5.0}),
    ]
    return draw_shares("time", bars, "seconds", lambda value: f"{value:.1f} s")


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_legend_names_each_part_once_and_the_small_ones_as_one(svg: str) -> None:
    found = texts(svg)
    assert [name for name in found if name in ("updates", "probe", REST)] == ["updates", "probe", REST]
    assert not {"waiting", "methods", "crash"} & set(found)
    assert "&lt;b&gt;$part&lt;/b&gt;$" in found


def test_large_parts_hold_their_value(svg: str) -> None:
    found = texts(svg)
    assert {"90.0 s", "8.0 s", "20.0 s", "charged", "not charged", "seconds"} <= set(found)
    assert "5.0 s" not in found


def test_large_numbers_have_their_thousands_apart() -> None:
    svg = draw_shares("parameters", [("all", {"embedding": 200_000.0})], "parameters", str)
    assert "100,000" in texts(svg)


def test_nothing_at_all_can_be_drawn() -> None:
    assert "<svg" in draw_shares("nothing", [("all", {})], "seconds", str)
