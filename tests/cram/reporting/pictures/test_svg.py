import re
import warnings
from typing import Any

from cram.reporting.pictures.palette import INK, SERIES
from cram.reporting.pictures.svg import draw_svg


def draw(_: Any, axes: Any) -> None:
    axes.plot([1, 2, 3], [3, 1, 2], "o-", label="a <curve> & more")
    axes.set(title="title", xlabel="x")
    axes.legend()


def test_equal_pictures_are_equal_bytes_and_need_no_file_around_them() -> None:
    svg = draw_svg("one", draw)
    assert svg == draw_svg("one", draw)
    assert svg.startswith("<svg")
    assert "<style" not in svg  # it would hold for the whole page
    assert 'width="' not in svg.split(">")[0]


def test_text_stays_text_in_the_font_of_the_page() -> None:
    svg = draw_svg("one", draw)
    assert "a &lt;curve&gt; &amp; more" in svg
    assert "font-family" not in svg


def test_letters_that_the_drawing_font_lacks_are_text_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = draw_svg("one", lambda _, axes: axes.set_title("\u4e2d\u6587 \U0001f600"))
    assert "\u4e2d\u6587 \U0001f600" in svg


def test_colours_are_variables_of_the_page() -> None:
    svg = draw_svg("one", draw).lower()
    assert "var(--series-0)" in svg
    assert "var(--ink)" in svg
    assert SERIES[0] not in svg
    assert INK not in svg


def test_ids_are_those_that_are_referred_to_and_differ_between_pictures() -> None:
    one, other = draw_svg("one", draw), draw_svg("other", draw)
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert not ids[0] & ids[1]
    assert ids[0] == set(re.findall(r"#([\w.-]+)", one))
