"""Bars of shares: each part can be told from the others."""

import re

from cram.reporting.pictures.shares import draw_shares


def looks(svg: str) -> set[str]:
    """How the bars and the entries of the legend are filled, by colour or by the colour and lines of a hatch."""
    patterns = dict(re.findall(r'<pattern id="([^"]+)"(.*?)</pattern>', svg, re.DOTALL))
    fills = re.findall(r"fill: (?:url\(#([^)]+)\)|(var\(--series-\d\)))", svg)
    return {f"hatched {re.findall(r'--series-[0-9]', patterns[name])}" if name else color for name, color in fills}


def test_no_two_parts_look_the_same_and_small_ones_are_one() -> None:
    parts = {f"part {number}": 10.0 for number in range(9)}
    svg = draw_shares("many", [("one", parts | {"tiny": 0.2, "little": 0.3})], "seconds", str)
    assert "the rest" in svg
    assert "tiny" not in svg
    assert len(looks(svg)) == len(parts) + 1
