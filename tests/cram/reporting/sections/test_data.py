from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cram.data.inspect.figures import FateLine
from cram.reporting.page.blocks import Block, Facts, Fold, Headline, Page, Passage, Picture, Section, Table
from cram.reporting.page.render import render_page
from cram.reporting.reading.shards import DuplicatePair, Excerpt, Preparation, ShardData, TokenCount, read_shards
from cram.reporting.sections import documents, tokens
from cram.reporting.sections.data import data_sections
from cram.reporting.sections.documents import describe_difference, show_text
from cram.reporting.sections.formats import format_large
from tests.cram.data.inspect.small_folder import NOTICE, prepared

HOSTILE = "<script>alert(1)</script> </section> \u202edrawkcab\u202c \x1b[31m\x00 \"&' {{ 7 * 7 }} $x$ \\frac{"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ShardData:
    return read_shards(prepared(tmp_path_factory.mktemp("sections") / "corpus").folder)


@pytest.fixture(scope="module")
def sections(data: ShardData) -> list[Section]:
    return data_sections(data)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time, and these tests are not about them."""
    for module in (documents, tokens):
        monkeypatch.setattr(module, "draw_svg", lambda *_, **__: "<svg></svg>")


def inside(blocks: Iterable[Block]) -> list[Block]:
    """All blocks, also those that are folded or stand beside each other."""
    return [one for block in blocks for one in (block, *inside(getattr(block, "blocks", ())))]


def of_kind(sections: Iterable[Section], kind: type) -> list[Any]:
    return [block for section in sections for block in inside(section.blocks) if isinstance(block, kind)]


def table(sections: Iterable[Section], column: str) -> dict[str, list[str]]:
    """The table that has this column: the cells of each row by the first cell."""
    (found,) = [one for one in of_kind(sections, Table) if column in [head.name for head in one.columns]]
    return {row[0].text: [cell.text for cell in row[1:]] for row in found.rows}


def texts(value: Any) -> list[str]:
    """All texts of blocks but pictures."""
    if isinstance(value, str):
        return [value]
    if is_dataclass(value):
        return [text for one in fields(value) if one.name != "svg" for text in texts(getattr(value, one.name))]
    return [text for one in value for text in texts(one)] if isinstance(value, list | tuple) else []


def test_what_became_of_the_documents(sections: list[Section]) -> None:
    fates = table(sections, "what became of them")
    assert fates["read"][:2] == ["216", "100.00%"]
    assert fates["dropped: min_words"][0] == "7"
    (meanings,) = [one for one in of_kind(sections, Facts) if one.title.startswith("What was dropped")]
    assert dict(meanings.facts)["min_words"] == "documents with fewer words (min_words=12)"
    assert dict(meanings.facts)["exact"] == "documents with the same words in the same order as an earlier one"
    numbers = {name: int(cells[0].replace(",", "")) for name, cells in fates.items() if name != "boilerplate lines cut"}
    assert numbers.pop("read") == sum(numbers.values()) == 216
    dropped = sum(number for name, number in numbers.items() if name.startswith("dropped"))
    assert next(one.title for one in sections if one.name == "data-documents").startswith(f"{dropped / 216:.1%}")


def test_the_headline_counts(data: ShardData, sections: list[Section]) -> None:
    (headline,) = of_kind(sections, Headline)
    figures = {figure.label: figure.value for figure in headline.figures}
    assert figures["tokens to train on"] == format_large(data.tokens)
    assert figures["documents kept"] == f"{data.documents:,}"
    assert figures["rows"] == f"{data.rows:,}"


def test_samples_and_duplicates_can_be_read(sections: list[Section]) -> None:
    folds = {fold.title: fold.blocks for fold in of_kind(sections, Fold)}
    assert "dropped: min_words: 7 samples of 7" in folds
    boilerplate = next(blocks for title, blocks in folds.items() if title.startswith("lines cut as boilerplate: "))
    (passage,) = boilerplate
    assert isinstance(passage, Passage)
    assert {piece.text for piece in passage.pieces if piece.label} == {NOTICE}
    near = next(blocks for title, blocks in folds.items() if title.startswith("near: "))
    assert all(len(passage.pieces) == 2 and passage.side_by_side for passage in near if isinstance(passage, Passage))


@pytest.mark.usefixtures("undrawn")
def test_the_least_similar_pairs_are_shown(data: ShardData) -> None:
    pairs = [
        DuplicatePair("near", 0.8 + number / 100, Excerpt("a", "b"), Excerpt("c", "d")) for number in range(9, 0, -1)
    ]
    (fold,) = [one for one in of_kind(data_sections(replace(data, pairs=pairs)), Fold) if one.title.startswith("near:")]
    assert fold.title.endswith("the least similar ones")
    assert [passage.title[:16] for passage in fold.blocks] == [f"similarity 0.8{number}0" for number in range(1, 6)]


def test_every_picture_says_what_it_shows(sections: list[Section]) -> None:
    pictures = of_kind(sections, Picture)
    assert len(pictures) == 3
    assert all(picture.svg.startswith("<svg") and len(picture.description) > 20 for picture in pictures)


@pytest.mark.usefixtures("undrawn")
def test_mixture_and_estimate_stand_beside_their_outcomes(data: ShardData) -> None:
    assert isinstance(data.preparation, Preparation)
    estimate = {"seconds": {"scan": 2.0}, "tokens": 2 * data.tokens, "is_whole": True, "spread": 0.2}
    stages = [*data.preparation.stages]
    stages[:] = [replace(line, seconds=1.0) if line.name == "scan" else line for line in stages]
    preparation = replace(data.preparation, stages=stages, estimate=estimate | {"sampled_bytes": 5_000_000})
    mixture = [("a.jsonl", 0.25, 25, 0.2), ("rest", None, 100, 0.8)]
    sections = data_sections(replace(data, mixture=mixture, preparation=preparation))
    outcome = table(sections, "estimated")
    assert outcome["scan"] == ["2.00 s", "1.00 s", "-50%"]
    assert outcome["tokens"][-1] == "-50%"
    shares = table(sections, "asked for")
    assert shares == {"a.jsonl": ["25.00%", "20.00%", "-5.00%", "25"], "rest": ["the rest", "80.00%", "", "100"]}


@pytest.mark.usefixtures("undrawn")
def test_held_out_text_in_the_rows_stands_out(data: ShardData) -> None:
    check = dict(data.held_out_check) | {"windows_found": 3}
    section = next(one for one in data_sections(replace(data, held_out_check=check)) if one.name == "data-held-out")
    assert section.title == "Held-out text is in the rows"
    assert "3 windows" in " ".join(texts(section)) and section.blocks[0].tone == "bad"  # type: ignore[union-attr]
    assert "data-held-out" not in [one.name for one in data_sections(replace(data, held_out_check={}))]


@pytest.mark.usefixtures("undrawn")
def test_a_folder_with_nothing_dropped_has_no_samples(data: ShardData) -> None:
    fates = [line for line in data.fates if not line.reason]
    sections = data_sections(replace(data, fates=fates, samples={}, pairs=[], preparation=None))
    assert "data-duplicates" not in [one.name for one in sections]
    assert next(one.title for one in sections if one.name == "data-preparation") == "Preparation"


def test_words_of_strangers_are_shown_as_they_are_and_change_nothing(data: ShardData) -> None:
    excerpt = Excerpt(HOSTILE, HOSTILE + "x" * 5000)
    named, formula = TokenCount(HOSTILE, 1, 5), TokenCount("$\\frac{a$ \u65e5", 2, 4)
    hostile = replace(
        data,
        folder=Path(f"/{HOSTILE[:30]}"),
        sources=[(HOSTILE, 1, 1)] * 200,
        mixture=[(HOSTILE, None, 1, 1.0)],
        fates=[*data.fates, FateLine("dropped", HOSTILE, 2, 3)],
        samples={HOSTILE: [excerpt] * 9},
        pairs=[DuplicatePair("near", 0.9, excerpt, Excerpt("a", "b"))],
        tokens_by_rank=replace(data.tokens_by_rank, named=[named, formula], frequent=[named], rare=[named]),
        settings=[("tokens", HOSTILE)],
    )
    sections = data_sections(hostile)
    assert all(sign == "\n" or sign.isprintable() for text in texts(list(sections)) for sign in text)
    page = render_page(Page("data", sections, 0.0))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "100 smaller files" in page


def test_lines_stay_and_invisible_characters_are_escaped() -> None:
    assert show_text("one\ntwo\u202e \x07é日") == "one\ntwo\\u202e \\x07é日"


def test_the_spaces_of_a_token_can_be_counted() -> None:
    assert tokens.show_token("  a\n") == "␣␣a\\n"


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        ("a b c", "the same words in these excerpts"),
        ("a x c", "“x” for “b”"),
        ("a b c d", "“d” more"),
        ("b c", "“a” is missing"),
        ("1 b 2", "“1” for “a”; “2” for “c”"),
    ],
)
def test_the_difference_of_a_pair_is_told(dropped: str, said: str) -> None:
    assert describe_difference("a b c", dropped) == said


def test_the_end_of_a_cut_excerpt_is_not_a_difference() -> None:
    text = "word " * 200
    assert describe_difference(f"new {text}"[:600], text[:600]) == "“new” is missing"
