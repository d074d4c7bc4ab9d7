"""Two plots of a shard folder: how long its documents are, and how often its tokens occur."""

import warnings
from io import BytesIO
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.files.atomic import write_atomic

PLOTS = "plots"
BAR = 1.1  # the end of a bar of the histogram of lengths, over its start
NAMED_RANKS = [4**power for power in range(10)]


def draw_plots(shards: ShardSet, tokenizer: Tokenizer) -> None:
    """Write the plots and say where; a folder that cannot be written costs the plots alone."""
    pictures = {"lengths.png": _plot_lengths(shards), "tokens.png": _plot_tokens(shards, tokenizer)}
    folder = shards.folder / PLOTS
    try:
        for name, picture in pictures.items():
            write_atomic(folder / name, picture)
    except (OSError, CramError) as error:
        print(f"\nno plots: {folder} cannot be written ({error})")
    else:
        print(f"\nplots: {', '.join(str(folder / name) for name in pictures)}")


def printable(text: str) -> str:
    """The text with all that a terminal or a font might not show escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _plot_lengths(shards: ShardSet) -> bytes:
    """Documents by their length: a histogram over a log axis, each bar as high as if it were `BAR` wide."""
    figure, axes = _figure()
    counts = shards.lengths()
    (lengths,) = counts.nonzero()
    low, high = int(lengths[0]), int(lengths[-1]) + 1
    bars = int(np.ceil(np.log(high / low) / np.log(BAR)))
    edges = np.unique(np.geomspace(low, high, bars + 1).round().astype(int))
    heights = np.add.reduceat(counts[:high], edges[:-1]) * np.log(BAR) / np.diff(np.log(edges))
    axes.stairs(heights, edges, fill=True, alpha=0.6)
    median = int(np.searchsorted(np.cumsum(counts), shards.documents / 2))
    mean, seq_len = shards.tokens / shards.documents, shards.seq_len
    fitting = counts[: seq_len + 1].sum() / shards.documents
    for place, style, name in (
        (mean, {"color": "C3"}, f"mean {mean:,.0f}"),
        (median, {"color": "C2"}, f"median {median:,}"),
        (seq_len, {"color": "0.2", "linestyle": "--"}, f"seq_len {seq_len:,} ({fitting:.0%} of the documents fit)"),
    ):
        axes.axvline(place, label=name, linewidth=1.2, **style)
    longer = f" (last bar: {len(counts) - 1:,} and more)" if counts[-1] else ""
    axes.set(xscale="log", xlim=(min(low, seq_len) / BAR, max(high, seq_len) * BAR))
    axes.set(xlabel=f"tokens of a document{longer}", ylabel=f"documents per {BAR - 1:.0%} of length")
    return _png(figure, axes, f"{shards.folder.name}: {shards.documents:,} documents")


def _plot_tokens(shards: ShardSet, tokenizer: Tokenizer) -> bytes:
    """How often each token occurs, by its rank, both axes log; some tokens are named."""
    figure, axes = _figure()
    counts = shards.token_counts()
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    ranks = np.arange(1, len(order) + 1)
    axes.plot(ranks, counts[order], linewidth=1.5, label=f"{len(order):,} of {len(counts):,} tokens occur")
    axes.plot(ranks, counts[order[0]] / ranks, "--", color="0.6", linewidth=1, label="1 / rank")
    for rank in [*(rank for rank in NAMED_RANKS if rank < len(order)), len(order)]:
        token = int(order[rank - 1])
        place, last = (rank, counts[token]), rank == len(order)
        axes.plot(*place, "o", color="C0", markersize=4)
        axes.annotate(
            f'"{printable(tokenizer.id_to_token(token) or str(token))}"', place, (-6, 0) if last else (5, 4),
            textcoords="offset points", ha="right" if last else "left", parse_math=False,
        )  # fmt: skip
    axes.margins(x=0.1, y=0.08)
    axes.set(xscale="log", yscale="log", xlabel="rank of a token", ylabel="how often it occurs")
    return _png(figure, axes, f"{shards.folder.name}: {shards.tokens:,} tokens")


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(8, 4.5), layout="constrained")


def _png(figure: Any, axes: Any, title: str) -> bytes:
    """The picture, its legend below it, with plain numbers along its axes."""
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            narrow = np.ptp(np.log10(axis.get_view_interval())) < 4
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=20))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    picture = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a token in a script that the font lacks is drawn as a box
        figure.savefig(picture, dpi=130, format="png")
    pyplot.close(figure)
    return picture.getvalue()
