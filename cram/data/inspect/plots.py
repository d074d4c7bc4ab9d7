"""Draws two plots of a shard folder: how long its documents are, and how often its tokens occur."""

import warnings
from io import BytesIO
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cram.data.inspect.figures import BAR, histogram_lengths, printable, rank_tokens
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.files.atomic import write_atomic

PLOTS = "plots"


def draw_plots(shards: ShardSet, tokenizer: Tokenizer) -> None:
    """Write the plots and print their paths. If the folder cannot be written, only print why."""
    pictures = {"lengths.png": _plot_lengths(shards), "tokens.png": _plot_tokens(shards, tokenizer)}
    folder = shards.folder / PLOTS
    try:
        for name, picture in pictures.items():
            write_atomic(folder / name, picture)
    except (OSError, CramError) as error:
        print(f"\nno plots, because {folder} cannot be written ({error})")
    else:
        print(f"\nplots: {', '.join(str(folder / name) for name in pictures)}")


def _plot_lengths(shards: ShardSet) -> bytes:
    """Plot a histogram of document lengths over a log axis."""
    figure, axes = _figure()
    seq_len = shards.seq_len
    lengths = histogram_lengths(shards.lengths(), shards.tokens, seq_len)
    axes.stairs(lengths.heights, lengths.edges, fill=True, alpha=0.6)
    axes.axvline(lengths.mean, label=f"mean {lengths.mean:,.0f}", linewidth=1.2, color="C3")
    axes.axvline(lengths.median, label=f"median {lengths.median:,}", linewidth=1.2, color="C2")
    label = f"seq_len {seq_len:,} ({lengths.fitting:.0%} of the documents fit)"
    axes.axvline(seq_len, label=label, linewidth=1.2, color="0.2", linestyle="--")
    longer = "" if lengths.most is None else f" (last bar: {lengths.most:,} and more)"
    low, high = lengths.edges[[0, -1]]
    axes.set(xscale="log", xlim=(min(low, seq_len) / BAR, max(high, seq_len) * BAR))
    axes.set(xlabel=f"tokens of a document{longer}", ylabel=f"documents per {BAR - 1:.0%} of length")
    return _png(figure, axes, f"{shards.folder.name}: {shards.documents:,} documents")


def _plot_tokens(shards: ShardSet, tokenizer: Tokenizer) -> bytes:
    """Plot how often each token occurs by its rank, with log axes; some tokens are named."""
    figure, axes = _figure()
    ranked = rank_tokens(shards.token_counts())
    tokens, counts = ranked.tokens, ranked.counts
    ranks = np.arange(1, len(tokens) + 1)
    axes.plot(ranks, counts, linewidth=1.5, label=f"{len(tokens):,} of {ranked.vocab_size:,} tokens occur")
    axes.plot(ranks, counts[0] / ranks, "--", color="0.6", linewidth=1, label="1 / rank")
    for rank in ranked.named():
        token, count = int(tokens[rank - 1]), int(counts[rank - 1])
        axes.plot(rank, count, "o", color="C0", markersize=4)
        name = f'"{printable(tokenizer.id_to_token(token) or str(token))}"'
        _annotate(axes, name, (rank, count), left=rank == len(tokens))
    axes.margins(x=0.1, y=0.08)
    axes.set(xscale="log", yscale="log", xlabel="rank of a token", ylabel="how often it occurs")
    return _png(figure, axes, f"{shards.folder.name}: {shards.tokens:,} tokens")


def _annotate(axes: Any, text: str, point: tuple[int, int], left: bool) -> None:
    """Write a text beside a point: to its left, or to the right and a little above."""
    offset = (-6, 0) if left else (5, 4)
    alignment = "right" if left else "left"
    axes.annotate(text, point, offset, textcoords="offset points", ha=alignment, parse_math=False)


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(8, 4.5), layout="constrained")


def _png(figure: Any, axes: Any, title: str) -> bytes:
    """Render a figure as PNG, with a title, a legend below it and plain numbers along its axes."""
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
        warnings.filterwarnings("ignore", "Glyph")  # characters that the font lacks are drawn as boxes
        figure.savefig(picture, dpi=130, format="png")
    pyplot.close(figure)
    return picture.getvalue()
