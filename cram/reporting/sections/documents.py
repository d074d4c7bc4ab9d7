"""The sections on what became of documents: what was dropped and why, with samples to read, and duplicates."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from cram.config.config import Config
from cram.config.schema import collect_keys
from cram.data.inspect.figures import FateLine, printable
from cram.data.preparation.samples import EXCERPT, FIXED
from cram.data.preparation.statistics import STATISTICS
from cram.reporting.page.blocks import Block, Cell, Column, Facts, Fold, Passage, Picture, Piece, Section, Table, Text
from cram.reporting.pictures.palette import series_color
from cram.reporting.pictures.svg import draw_svg
from cram.reporting.reading.shards import DuplicatePair, Excerpt, ShardData
from cram.reporting.sections.formats import count, format_bytes

LEAST_BARS = 3  # fewer reasons need no picture
SAMPLES_SHOWN = 8  # of each reason
PAIRS_SHOWN = 5  # of each reason
DIFFERENCES_SHOWN = 3  # of a pair
LONGEST_REASON = 24  # characters of a reason in the picture
LONGEST_CHANGE = 40  # characters of a difference
ALWAYS_SHOWN = ("read", "held out", "kept")  # lines of the table, also where they are zero
# What the reasons mean that are not a key of `data.filters` or `data.dedupe`.
MEANINGS = {
    "empty": "documents without text",
    "broken": "records that could not be read",
    "near_held_out": "near duplicates of held-out documents",
    "ids_held_out": "documents with the same tokens as a held-out one",
    "window_held_out": "documents that share a long run of tokens with a held-out one",
}
CHANGES = {"boilerplate": "lines cut as boilerplate", FIXED: "C1 controls replaced"}  # samples that are not dropped


def document_section(shards: ShardData) -> Section:
    """What became of the documents, as a table, with samples of each reason."""
    counts = shards.counts
    dropped = sum(line.documents for line in shards.fates if line.reason)
    share = dropped / max(1, counts["documents_in"])
    blocks: list[Block] = [_fate_table(shards), *_picture(shards), *_meanings(shards)]
    if fixed := counts.get("fixed_documents"):
        blocks.append(
            Text(
                f"{counts['fixed_characters']:,} C1 controls in {fixed:,} documents were replaced by the characters "
                "that they are in Windows-1252."
            )
        )
    blocks += [_samples(reason, samples, shards) for reason, samples in shards.samples.items() if samples]
    return Section("data-documents", f"{share:.1%} of the documents were dropped", blocks)


def _fate_table(shards: ShardData) -> Table:
    lines = [line for line in shards.fates if line.documents or line.name in ALWAYS_SHOWN]
    columns = [
        Column("what became of them"),
        Column("number", numeric=True),
        Column("share", numeric=True),
        Column("text", numeric=True),
        Column("share of text", numeric=True),
    ]
    return Table(columns, [_fate_cells(line, shards) for line in lines], "What became of the documents", sortable=False)


def _picture(shards: ShardData) -> list[Picture]:
    """How much of the text each reason took, as bars."""
    lines = sorted((line for line in shards.fates if line.reason), key=lambda line: line.documents)
    if len(lines) < LEAST_BARS:
        return []
    names, counts = (
        [shorten(printable(line.reason), LONGEST_REASON) for line in lines],
        [line.documents for line in lines],
    )

    def draw(_: Any, axes: Any) -> None:
        bars = axes.barh(range(len(names)), counts, height=0.7, color=series_color(0))
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_xlabel("documents dropped")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12, y=0.02)

    svg = draw_svg("data-dropped", draw, height=0.9 + 0.28 * len(names))
    description = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    return [Picture("Documents that each reason dropped", svg, f"Documents dropped: {description}.")]


def _fate_cells(line: FateLine, shards: ShardData) -> list[Cell]:
    share = line.documents / max(1, shards.counts["documents_in"])
    size = None if line.bytes is None else line.bytes / max(1, shards.counts["bytes_in"])
    return [
        Cell(f"dropped: {printable(line.reason)}" if line.reason else line.name),
        Cell(f"{line.documents:,}", line.documents),
        Cell(f"{share:.2%}", share),
        Cell("" if line.bytes is None else format_bytes(line.bytes), line.bytes),
        Cell("" if size is None else f"{size:.2%}", size),
    ]


def _meanings(shards: ShardData) -> list[Facts]:
    """What each reason means that has dropped documents."""
    reasons = [line.reason for line in shards.fates if line.reason and line.documents]
    meanings = [(printable(reason), _explain(reason, shards)) for reason in reasons]
    return [Facts(meanings, "What was dropped for each reason")] if meanings else []


def _explain(reason: str, shards: ShardData) -> str:
    """What a reason means: the help of its key with the value that it had, or a sentence."""
    if reason in MEANINGS:
        return MEANINGS[reason]
    settings, keys = dict(shards.settings), collect_keys(Config)
    for group in ("filters", "dedupe"):
        if spec := keys.get(f"data.{group}.{reason}"):
            text = re.sub(r"( \([^()]*\)|; .*)$", "", str(spec.metadata["help"])).removeprefix("drop ")
            value = settings.get(f"{group}.{reason}", "true")
            # The setting of decontamination is a hash of the files, which tells a reader nothing.
            shown = value not in ("true", "false") and reason != "decontaminate"
            return f"{text} ({reason}={value})" if shown else text
    return ""


def _samples(reason: str, samples: Sequence[Excerpt], shards: ShardData) -> Fold:
    documents = {line.reason: line.documents for line in shards.fates}.get(reason)
    name = CHANGES.get(reason, f"dropped: {printable(reason)}")
    shown = samples[:SAMPLES_SHOWN]
    of = "" if documents is None else f" of {documents:,}"
    pieces = [_sample(sample) for sample in shown]
    if len(samples) > len(shown):
        pieces.append(Piece(f"{STATISTICS} has {len(samples) - len(shown)} more.", tone="note"))
    return Fold(f"{name}: {count(len(shown), 'sample')}{of}", [Passage("", pieces)])


def _sample(sample: Excerpt, label: str = "") -> Piece:
    """A document to read, with a sign where it was cut."""
    cut = "…" if len(sample.text) >= EXCERPT else ""
    return Piece(show_text(sample.text), label + printable(sample.origin), after=cut)


def show_text(text: str) -> str:
    """A text to read: its line ends stay, other characters that cannot be seen are escaped."""
    return "\n".join(printable(line) for line in text.split("\n"))


def duplicate_section(shards: ShardData) -> Section:
    """Pairs of duplicates side by side, for each reason the least similar ones first."""
    by_reason: dict[str, list[DuplicatePair]] = {}
    for pair in shards.pairs:
        by_reason.setdefault(pair.reason, []).append(pair)
    documents = {line.reason: line.documents for line in shards.fates}
    total = sum(documents.get(reason, 0) for reason in by_reason)
    blocks: list[Block] = []
    for reason, pairs in by_reason.items():
        # The least similar pairs show whether too much is dropped.
        shown = sorted(pairs, key=lambda pair: pair.similarity)[:PAIRS_SHOWN]
        order = ", the least similar ones" if shown[0].similarity < max(pair.similarity for pair in pairs) else ""
        title = f"{printable(reason)}: {count(len(shown), 'pair')} of {documents.get(reason, len(pairs)):,}{order}"
        blocks.append(Fold(title, [_pair(pair) for pair in shown]))
    return Section(
        "data-duplicates", "1 document repeats another" if total == 1 else f"{total:,} documents repeat others", blocks
    )


def _pair(pair: DuplicatePair) -> Passage:
    dropped, kept = pair.dropped, pair.kept
    return Passage(
        f"similarity {pair.similarity:.3f}, {describe_difference(kept.text, dropped.text)}",
        [
            _sample(dropped, "dropped: "),
            _sample(kept, "kept: "),
        ],
        side_by_side=True,
    )


def describe_difference(kept: str, dropped: str) -> str:
    """Say in a few words how the beginnings of two documents differ."""
    before, after = kept.split(), dropped.split()
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    if max(len(kept), len(dropped)) >= EXCERPT and steps and steps[-1][0] != "equal":
        steps.pop()  # where an excerpt was cut, its end says nothing
    changes = [(" ".join(before[a:b]), " ".join(after[c:d])) for kind, a, b, c, d in steps if kind != "equal"]
    if not changes:
        return "the same words in these excerpts"
    shown = "; ".join(_describe_change(*change) for change in changes[:DIFFERENCES_SHOWN])
    more = len(changes) - DIFFERENCES_SHOWN
    return f"{shown}; {more} more" if more > 0 else shown


def _describe_change(before: str, after: str) -> str:
    kept, dropped = (f"“{shorten(printable(text), LONGEST_CHANGE)}”" for text in (before, after))
    return f"{dropped} for {kept}" if before and after else f"{dropped} more" if after else f"{kept} is missing"


def shorten(text: str, most: int) -> str:
    """Cut a text to so many characters, with an ellipsis where something is left out."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
