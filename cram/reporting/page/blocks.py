"""What a page is made of, as data: sections of blocks, which hold plain text and numbers.

No block holds HTML. `cram.reporting.page.render` writes every text so that it is shown as it is, whatever characters it
has. The one exception is `Picture.svg`, which `cram.reporting.pictures.svg.draw_svg` has drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Tone = Literal["plain", "note", "good", "warning", "bad"]
Number = float | int | None  # None is a value that is missing or not finite


@dataclass(frozen=True)
class Text:
    """A paragraph. A `note` is small and muted, a `warning` and a `bad` one stand out."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Code:
    """Text to copy, such as a command. Line ends are kept.

    Attributes:
        text: what is shown and copied.
        title: what it is; empty for none.
    """

    text: str
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """One large number of a headline.

    Attributes:
        label: what it is, such as `held-out loss`.
        value: as text with sensible digits.
        unit: such as `nats per token`; empty for none.
        detail: what it is compared with, or a second unit; empty for none.
        tone: whether it is good or bad.
    """

    label: str
    value: str
    unit: str = ""
    detail: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Headline:
    """The numbers that a reader looks for first."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Facts:
    """Names with their values, one below the other."""

    facts: Sequence[tuple[str, str]]
    title: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown.
        order: what the table is sorted by; None for the text itself.
        tone: whether it is good or bad.
        link: path of a file, relative to the page; empty for none.
    """

    text: str
    order: Number | str = None
    tone: Tone = "plain"
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, its unit, and whether it holds numbers, which are aligned to the right."""

    name: str
    unit: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort by any column.

    Attributes:
        columns: their headings.
        rows: as many cells each as there are columns.
        title: what the table shows; empty for none.
        note: a remark below it; empty for none.
        sortable: whether the reader can sort it.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    sortable: bool = True


@dataclass(frozen=True)
class Axis:
    """A horizontal axis that the reader can choose. Charts of one page that have an axis of the same name share it.

    Attributes:
        name: `seconds`, `tokens`, `updates` or `flops`, or another word for an axis that only one chart has.
        label: what the reader sees, with the unit, such as `time charged to the budget, s`.
    """

    name: str
    label: str


@dataclass(frozen=True)
class Series:
    """One line or set of points of a chart.

    Attributes:
        label: as the legend names it.
        x: for each axis by its name, the places of the points, ascending.
        y: their heights, as many as places; None leaves a gap.
        style: a line, points, or both.
        color: index into the palette; series of one run have the same one in all charts of a page.
        dashed: whether the line is dashed.
    """

    label: str
    x: Mapping[str, Sequence[float]]
    y: Sequence[Number]
    style: Literal["line", "points", "both"] = "line"
    color: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line of a chart at an event, such as a fault, a resume or a phase.

    Attributes:
        label: what has happened.
        x: its place on each axis by name.
        tone: `bad` for a fault.
    """

    label: str
    x: Mapping[str, float]
    tone: Tone = "note"


@dataclass(frozen=True)
class Level:
    """A horizontal line of a chart, such as a baseline."""

    label: str
    y: float


@dataclass(frozen=True)
class Chart:
    """Curves with zoom and hover, over an axis of the reader's choice.

    Attributes:
        title: says what is seen.
        axes: the first one is shown first.
        series: what is drawn. Their points have been thinned already.
        y_label: what the heights are, with the unit.
        marks: vertical lines.
        levels: horizontal lines.
        log_y: whether the vertical axis is logarithmic.
        description: the same in words, for readers who do not see it; empty makes one of the last values.
    """

    title: str
    axes: Sequence[Axis]
    series: Sequence[Series]
    y_label: str
    marks: Sequence[Mark] = ()
    levels: Sequence[Level] = ()
    log_y: bool = False
    description: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture that does not move.

    Attributes:
        title: says what is seen.
        svg: of `draw_svg`; the one text of a page that is written as it is.
        description: the same in words, for readers who do not see it.
    """

    title: str
    svg: str
    description: str


@dataclass(frozen=True)
class Piece:
    """A part of a passage.

    Attributes:
        text: what is shown; line ends are kept.
        label: what it is, such as `document 3`; empty for none.
        tone: a `note` is muted.
        before, after: what frames the text, muted, such as special tokens; empty for none.
    """

    text: str
    label: str = ""
    tone: Tone = "plain"
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Passage:
    """Text to read, such as a sample, a pair of duplicates, or a row of several documents with its borders.

    Attributes:
        title: where it comes from.
        pieces: its parts, with a border between them.
        side_by_side: whether the parts stand beside each other where there is room.
    """

    title: str
    pieces: Sequence[Piece]
    side_by_side: bool = False


@dataclass(frozen=True)
class Links:
    """Files beside the page: name, path relative to the page, and what it is."""

    files: Sequence[tuple[str, str, str]]
    title: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when the reader opens them."""

    title: str
    blocks: Sequence["Block"]
    opened: bool = False


@dataclass(frozen=True)
class Side:
    """Blocks beside each other where there is room, below each other where there is not."""

    blocks: Sequence["Block"]


Block = Text | Code | Headline | Facts | Table | Chart | Picture | Passage | Links | Fold | Side


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own.

    Attributes:
        name: letters, digits and `-`, which links lead to; no two sections of a page have the same.
        title: its heading.
        blocks: what it shows.
    """

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: of the page and of its window.
        subtitle: one line below the title; empty for none.
        sections: in order.
        written: when the page was made, in seconds since the epoch.
        data: for machines, JSON values by the name of the subject; stands in the page as JSON.
        refresh_seconds: after how many seconds the page loads itself again; None for a page that does not change.
        stale_seconds: after how many seconds without a newer page it gives that up, because what writes it must have
            been killed; None for a page that does not change.
    """

    title: str
    sections: Sequence[Section]
    written: float
    subtitle: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    refresh_seconds: int | None = None
    stale_seconds: int | None = None
