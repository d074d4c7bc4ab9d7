"""The sections on lengths of documents, frequencies of tokens, and rows as text."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cram.data.inspect.figures import BAR, printable
from cram.data.inspect.rows import RowDocument, RowText
from cram.reporting.page.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Fold,
    Passage,
    Picture,
    Piece,
    Section,
    Side,
    Table,
    Text,
)
from cram.reporting.pictures.palette import INK, MUTED, series_color
from cram.reporting.pictures.svg import draw_svg
from cram.reporting.reading.shards import ShardData, TokenCount
from cram.reporting.sections.documents import shorten
from cram.reporting.sections.formats import count, format_share

LONGEST_NAME = 20  # characters of a token in the plot
ROWS_OPENED = 2  # the others are opened by the reader, and long ones too
LONG_ROW = 1024  # tokens
DOCUMENTS_SHOWN = 12  # of a row
LONGEST_BODY = 1200  # characters of a document of a row


def length_section(shards: ShardData) -> Section:
    """How long the documents are."""
    lengths, seq_len = shards.lengths, shards.seq_len
    title = f"Half of the documents have at most {lengths.median:,} tokens"
    description = (
        f"Histogram of the lengths of {shards.documents:,} documents: mean {lengths.mean:,.0f} tokens, median "
        f"{lengths.median:,}; {lengths.fitting:.0%} fit into a row of {seq_len:,}."
    )

    def draw(figure: Any, axes: Any) -> None:
        axes.stairs(lengths.heights, lengths.edges, fill=True, alpha=0.55, color=series_color(0))
        lines = (
            (lengths.median, f"median {lengths.median:,}", series_color(1), "-"),
            (lengths.mean, f"mean {lengths.mean:,.0f}", series_color(2), "-."),
            (seq_len, f"a row, {seq_len:,} tokens", INK, "--"),
        )
        for place, label, color, style in lines:
            axes.axvline(place, label=label, linewidth=1.4, color=color, linestyle=style)
        low, high = lengths.edges[[0, -1]]
        longer = "" if lengths.most is None else f" (last bar: {lengths.most:,} and more)"
        axes.set(xscale="log", xlim=(min(low, seq_len) / BAR, max(high, seq_len) * BAR))
        axes.set(xlabel=f"tokens of a document{longer}", ylabel=f"documents per {BAR - 1:.0%} of length")
        _plain_numbers(axes.xaxis)
        _plain_numbers(axes.yaxis)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=3)

    picture = Picture("How long the documents are, over a logarithmic axis", _draw("lengths", draw), description)
    return Section("data-lengths", title, [picture, Text(f"{lengths.fitting:.2%} of them fit into a row.")])


def token_section(shards: ShardData) -> Section:
    """How often tokens occur, by rank."""
    figures = shards.tokens_by_rank
    ranks = figures.ranks
    number = len(ranks.tokens)
    top = int(ranks.counts[:100].sum()) / max(1, shards.tokens)
    title = f"{number:,} of {ranks.vocab_size:,} tokens occur"
    first, last = figures.named[0], figures.named[-1]
    description = (
        f"How often each token occurs by its rank, with log axes, from {_quote(first)} with {first.count:,} times to "
        f"{_quote(last)} with {last.count:,}."
    )
    blocks: list[Block] = [
        Picture(
            "How often tokens occur, by rank",
            _draw("token-ranks", lambda _, axes: _draw_ranks(shards, axes)),
            description,
        ),
        Text(
            f"The 100 most frequent tokens make {top:.0%} of the text; {np.sum(ranks.counts == 1):,} tokens occur once."
        ),
        Side(
            [
                Fold("The most frequent tokens", [_token_table(figures.frequent, shards)]),
                Fold("The least frequent tokens", [_token_table(figures.rare, shards)]),
            ]
        ),
        _tokenizer_facts(shards),
    ]
    return Section("data-tokens", title, blocks)


def _draw_ranks(shards: ShardData, axes: Any) -> None:
    figures = shards.tokens_by_rank
    counts = figures.ranks.counts
    # The curve is a staircase of ever longer steps: on log axes, few of its points suffice.
    shown = np.unique(np.geomspace(1, len(counts), 400).round().astype(int))
    axes.plot(shown, counts[shown - 1], linewidth=1.8, color=series_color(0), label="tokens")
    axes.plot(shown, counts[0] / shown, "--", color=MUTED, linewidth=1.2, label="1 / rank (Zipf)")
    for named in figures.named:
        axes.plot(named.rank, named.count, "o", color=series_color(0), markersize=4)
        is_last = named.rank == len(counts)
        axes.annotate(
            _quote(named),
            (named.rank, named.count),
            (-6, -3) if is_last else (5, 4),
            textcoords="offset points",
            ha="right" if is_last else "left",
            parse_math=False,
        )
    axes.margins(x=0.1, y=0.08)
    axes.set(xscale="log", yscale="log", xlabel="rank of a token", ylabel="how often it occurs")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    axes.legend(loc="lower left")


def _quote(named: TokenCount) -> str:
    return f"“{shorten(show_token(named.token), LONGEST_NAME)}”"


def show_token(token: str) -> str:
    """A token with a sign for each space, of which a browser shows one at most."""
    return printable(token.replace(" ", "␣"))


def _token_table(tokens: Sequence[TokenCount], shards: ShardData) -> Table:
    rows = [
        [
            Cell(f"{one.rank:,}", one.rank),
            Cell(show_token(one.token)),
            Cell(f"{one.count:,}", one.count),
            Cell(f"{100 * one.count / max(1, shards.tokens):.3g}%", one.count),
        ]
        for one in tokens
    ]
    columns = [
        Column("rank", numeric=True),
        Column("token"),
        Column("times", numeric=True),
        Column("share", numeric=True),
    ]
    return Table(columns, rows)


def _tokenizer_facts(shards: ShardData) -> Facts:
    about = shards.tokenizer
    special = ", ".join(f"{printable(token)} ({role})" for role, token in shards.tokens_by_rank.special.items())
    facts = [
        ("tokenizer", "trained on a sample of this text" if about.get("trained_here") else "given by the user"),
        ("its sha256", str(about["sha256"])),
        ("ids, with the reserved ones", f"{shards.vocab_size:,}"),
        ("special tokens", special),
    ]
    if "unknown_tokens" in about:
        facts += [
            ("unknown tokens", format_share(about["unknown_tokens"], 3)),
            ("characters lost, of a sample", format_share(about["lost_characters"], 3)),
        ]
    return Facts(facts, "The tokenizer")


def row_section(shards: ShardData) -> Section:
    """How rows are packed, and some of them as text."""
    done = next((packing for packing in shards.packings if packing.measured), shards.packings[0])
    rows = [
        [
            Cell(packing.kind),
            Cell(f"{packing.fill:.3%}", packing.fill),
            Cell(f"{packing.cut_documents:,}", packing.cut_documents),
            Cell("measured, the rows are packed so" if packing.measured else "computed from the lengths"),
        ]
        for packing in sorted(shards.packings, key=lambda packing: not packing.measured)
    ]
    columns = [
        Column("packing"),
        Column("positions filled", numeric=True),
        Column("documents cut that fit a row", numeric=True),
        Column("origin"),
    ]
    table = Table(columns, rows, "The way of packing, and the other one", sortable=False)
    folds = [
        _show_row(row, opened=number < ROWS_OPENED and shards.seq_len < LONG_ROW)
        for number, row in enumerate(shards.text_rows)
    ]
    return Section("data-rows", f"{done.fill:.3%} of the positions of rows are filled", [table, *folds])


def _show_row(row: RowText, opened: bool) -> Fold:
    shown = row.documents[:DOCUMENTS_SHOWN]
    pieces = [_show_document(number, document) for number, document in enumerate(shown)]
    if len(row.documents) > len(shown):
        pieces.append(Piece(f"{count(len(row.documents) - len(shown), 'document')} more", tone="note"))
    if row.padding:
        pieces.append(Piece(count(row.padding, "token"), "padding", "note"))
    documents = count(len(row.documents), "document")
    title = f"Row {row.number:,}: {count(row.tokens, 'token')} of {documents}, {row.padding:,} of padding"
    return Fold(title, [Passage("", pieces)], opened)


def _show_document(number: int, document: RowDocument) -> Piece:
    begins = "" if document.begins else ", begins in another row"
    ends = "" if document.ends else ", goes on in another row"
    body = document.body
    return Piece(
        printable(shorten(body, LONGEST_BODY)),
        f"document {number}: {count(document.tokens, 'token')}{begins}{ends}",
        before=printable(document.opening),
        after=printable(document.closing),
    )


def _draw(name: str, draw: Callable[[Any, Any], None]) -> str:
    with warnings.catch_warnings():
        # The reader's own fonts draw the text, also a character that the measuring font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        return draw_svg(f"data-{name}", draw)


def _plain_numbers(axis: Any) -> None:
    """Write whole numbers along an axis; along a short log axis also 2 and 5 times the powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if axis.get_scale() == "log":
        narrow = np.ptp(np.log10(axis.get_view_interval())) < 4
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=20))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
