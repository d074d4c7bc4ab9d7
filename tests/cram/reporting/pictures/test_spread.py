"""The picture of values with their spread: every value, the mean and the reference, with labels as text."""

import re

from cram.reporting.pictures.palette import VARIABLES, series_color
from cram.reporting.pictures.spread import LONGEST_LABEL, Spread, draw_spread


def test_groups_have_their_labels_and_colours() -> None:
    groups = [Spread("one", [4.0, 4.2, 4.1], 0), Spread("a <b> & $x$ \\$", [5.0], 2)]
    svg = draw_spread("name", groups, "nats", reference=4.1)
    assert ">one</text>" in svg and "a &lt;b&gt; &amp; $x$ \\$</text>" in svg and ">nats</text>" in svg
    for color in (0, 2):
        assert f"var({VARIABLES[series_color(color)]})" in svg
    assert draw_spread("name", groups, "nats", reference=4.1) == svg
    assert draw_spread("name", groups, "nats") != svg


def test_a_long_label_is_cut_and_more_groups_are_taller() -> None:
    def height(svg: str) -> float:
        (found,) = re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)
        return float(found)

    few = draw_spread("name", [Spread("x" * 99, [1.0])], "nats")
    assert "x" * (LONGEST_LABEL - 1) + "…" in few and "x" * LONGEST_LABEL not in few
    many = draw_spread("name", [Spread(str(number), [1.0]) for number in range(20)], "nats")
    assert height(many) > 3 * height(few)


def test_the_mean_is_that_of_the_values() -> None:
    assert Spread("one", [4.0, 5.0, 4.5]).mean == 4.5


def test_names_of_folders_that_are_not_utf_8_are_drawn() -> None:
    assert ">by?tes</text>" in draw_spread("by\udcfftes", [Spread("by\udcfftes", [1.0])], "nats")
