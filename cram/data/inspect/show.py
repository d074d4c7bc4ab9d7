"""A shard folder as a person sees it: what became of the documents, what was dropped, rows as text, two plots."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from cram.data.inspect.plots import draw_plots, printable
from cram.data.preparation.scan import FATES
from cram.data.preparation.statistics import STATISTICS
from cram.data.preparation.stopwatch import TIMING, TIMING_REMEDY
from cram.data.shards.shards import ShardSet
from cram.data.tokenizer import SpecialTokens, load_tokenizer
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.files.sealed import read_sealed

SAMPLES_SHOWN = 3
ROWS_SHOWN = 3
SAMPLE_LINES = 2.5  # of the terminal's width: what a sample is cut to
CUT = "..."
LIKE_HELD_OUT = ("near_held_out", "ids_held_out", "window_held_out")
WORTH_SAYING = 0.001  # share of unknown tokens or lost characters


def print_shards(folder: str | Path, row: int | None = None) -> None:
    """Print a shard folder and draw its plots; with `row`, print that row alone.

    Errors: CramError when the folder is no shard folder or has no such row.
    """
    shards = ShardSet.open(folder)
    console = Console(highlight=False)
    tokenizer = load_tokenizer(shards.tokenizer_path)
    if row is not None:
        if not 0 <= row < shards.rows:
            raise CramError(f"row={row}: {folder} has no such row; its rows are 0 to {shards.rows - 1}")
        return _print_row(shards, tokenizer, row, console)
    print_summary(shards)
    _print_dropped(shards, console)
    for number in np.unique((np.arange(ROWS_SHOWN) * 2 + 1) * shards.rows // (2 * ROWS_SHOWN)):
        _print_row(shards, tokenizer, int(number), console)
    draw_plots(shards, tokenizer)


def print_summary(shards: ShardSet, short: bool = False) -> None:
    """Print what became of the documents, how the rows are filled and where the time went; `short`: on one screen."""
    console = Console(highlight=False)
    counts = shards.manifest["counts"]
    console.print(_visible(str(shards.folder), console), soft_wrap=True)
    documents = _documents(shards, short, console)
    if short:
        documents.box = None
    console.print(documents)
    console.print(
        f"{shards.tokens:,} tokens ({counts['bytes'] / max(1, shards.tokens):.2f} bytes each) "
        f"in {shards.rows:,} rows x {shards.seq_len} tokens, {len(shards.manifest['shards']):,} shard(s)"
    )
    _say_unknown(shards, short, console)
    timing = read_sealed(shards.folder / TIMING, f"; {TIMING_REMEDY}") if (shards.folder / TIMING).is_file() else None
    if short:
        _say_packing(shards, console)
    else:
        console.print(_packing(shards, console))
    if timing and short:
        console.print("time: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in timing["wall_seconds"].items()))
    elif timing:
        console.print(_time(timing, counts, console))
    if timing:
        peak = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in timing["peak_bytes"].items() if size)
        console.print(f"{timing['processes']} process(es), peak memory: {peak}")


def _documents(shards: ShardSet, short: bool, console: Console) -> Table:
    counts, dropped = shards.manifest["counts"], dict(shards.manifest["dropped"])
    if short and (alike := [dropped.pop(name) for name in LIKE_HELD_OUT if name in dropped]):
        dropped["as held out"] = {key: sum(one[key] for one in alike) for key in ("documents", "bytes")}
    lines = [
        ("read", counts["documents_in"], counts["bytes_in"]),
        ("held out", counts["held_out_documents"], counts["held_out_bytes"]),
        *((f"dropped: {name}", dropped[name]["documents"], dropped[name]["bytes"]) for name in _reasons(dropped)),
        ("behind the token limit", counts["not_needed_documents"], None),
        ("kept", counts["documents"], counts["bytes"]),
        ("boilerplate lines cut", counts["boilerplate_documents"], counts["boilerplate_bytes"]),
    ]
    table = _table(console, "", "documents", "share", "bytes")
    for name, documents, size in lines:
        if documents or name in ("read", "held out", "kept"):
            share = documents / max(1, counts["documents_in"])
            table.add_row(name, f"{documents:,}", f"{share:.2%}", "" if size is None else f"{size:,}")
    return table


def _reasons(named: dict[str, Any]) -> list[str]:
    """The names in the order of the filters, then those that are no fate."""
    return [*(name for name in FATES if name in named), *sorted(set(named) - set(FATES))]


def _packing(shards: ShardSet, console: Console) -> Table:
    table = _table(console, "packing", "positions filled", "documents cut", "")
    for kind, found in shards.manifest["packing"].items():
        how = "measured" if found["measured"] else "told from the lengths"
        table.add_row(kind, f"{found['fill']:.3%}", f"{found['cut_documents']:,}", how)
    return table


def _say_packing(shards: ShardSet, console: Console) -> None:
    for kind, found in sorted(shards.manifest["packing"].items(), key=lambda item: not item[1]["measured"]):
        name = kind if found["measured"] else f"{kind} instead"
        cut = f"{found['cut_documents']:,} documents cut that fit a row"
        console.print(f"packing {name}: {found['fill']:.2%} filled, {cut}")


def _say_unknown(shards: ShardSet, short: bool, console: Console) -> None:
    """What the tokenizer does not know; on one screen only where it is worth a line."""
    about = shards.manifest["tokenizer"]
    if "unknown_tokens" in about and (
        not short or max(about["unknown_tokens"], about["lost_characters"]) >= WORTH_SAYING
    ):
        console.print(
            f"{about['unknown_tokens']:.2%} of the tokens are unknown; of a sample's characters "
            f"{about['lost_characters']:.2%} are lost, behind them or dropped"
        )


def _time(timing: dict[str, Any], counts: dict[str, int], console: Console) -> Table:
    """Wall seconds of the process that finished the set, and below a stage those of its activities on all processes."""
    texts, resumed = {"scan": counts["bytes_in"], "pack": counts["bytes"]}, False
    table = _table(console, "time", "seconds", "MB/s of text")
    for stage, seconds in timing["wall_seconds"].items():
        activities = timing.get(f"{stage}_seconds", {})
        # Activities that took longer than there was time are from before a restart, and so is some of the text.
        cut = sum(activities.values()) > seconds * (timing["processes"] + 1)
        resumed |= cut
        table.add_row(stage, f"{seconds:.1f}", _pace(None if cut else texts.get(stage), seconds))
        for activity, spent in activities.items():
            table.add_row(f"  {activity}", f"{spent:.1f}", _pace(texts[stage], spent))
    total = sum(timing["wall_seconds"].values())
    table.add_row("all", f"{total:.1f}", _pace(None if resumed else counts["bytes_in"], total))
    return table


def _pace(size: int | None, seconds: float) -> str:
    return f"{size / 1e6 / seconds:,.1f}" if size and seconds >= 0.01 else ""


def _print_dropped(shards: ShardSet, console: Console) -> None:
    """A few documents of each reason, cut short, and a few duplicates beside what they duplicate."""
    statistics = read_json(shards.checked_path(STATISTICS))
    for name in _reasons(statistics["samples"]):
        found = statistics["samples"][name]
        what = "lines cut as boilerplate" if name == "boilerplate" else f"dropped: {name}"
        some = found[:SAMPLES_SHOWN]
        console.print(f"\n{what} ({len(some)} of the {len(found)} samples in {STATISTICS})")
        for one in some:
            _print_sample("", one, console)
    if pairs := statistics["duplicates"]:
        # Spread, because the pairs of one reason stand together.
        chosen = np.unique(np.linspace(0, len(pairs) - 1, SAMPLES_SHOWN).astype(int)).tolist()
        console.print(f"\nduplicates ({len(chosen)} of the {len(pairs)} pairs in {STATISTICS})")
        for pair in map(pairs.__getitem__, chosen):
            _print_sample(f"{pair['reason']}, similarity {pair['similarity']:.3f}, dropped: ", pair["dropped"], console)
            _print_sample("  of which this was kept: ", pair["kept"], console)


def _print_sample(label: str, sample: dict[str, str], console: Console) -> None:
    console.print(_visible(f"  {label}{sample['origin']}", console), soft_wrap=True)
    text = _visible(sample["text"], console)
    most = int(SAMPLE_LINES * console.width)
    if text.cell_len > most:
        text.truncate(most - len(CUT))
        text.append(CUT)
    _print_beside("    | ", text, console)


def _print_row(shards: ShardSet, tokenizer: Tokenizer, number: int, console: Console) -> None:
    """One row, each of its documents behind its number; one that does not begin in it is marked as continued."""
    special = SpecialTokens.of(tokenizer)
    (tokens,), (documents,) = shards.read(np.array([number]))
    kept = tokens != special.pad
    pieces = np.split(tokens[kept], np.flatnonzero(np.diff(documents[kept])) + 1)
    padding = len(tokens) - int(kept.sum())
    console.print(f"\nrow {number:,}: {kept.sum()} tokens of {len(pieces)} document(s), {padding} of padding")
    for place, piece in enumerate(pieces):
        text = _visible(tokenizer.decode(piece.tolist(), skip_special_tokens=False), console)
        text.highlight_words(list(special.names(tokenizer).values()), "cyan")
        # Without a token that begins documents it is not seen whether this one began in another row.
        begins = special.cls is None or piece[0] == special.cls
        _print_beside(f"{place:>3} {'' if begins else 'continued':<9} | ", text, console)


def _print_beside(label: str, text: Text, console: Console) -> None:
    """Text that wraps beside its label on a terminal, and is one line elsewhere."""
    if console.is_terminal:
        table = Table.grid()
        table.add_column(no_wrap=True)
        table.add_row(Text(label, "dim"), text)
        console.print(table)
    else:
        console.print(Text(label) + text, soft_wrap=True)


def _visible(text: str, console: Console) -> Text:
    """Text that is no markup and can be printed: the ends of lines as a sign, what the output cannot show escaped."""
    shown = printable(text.replace("\n", " \u23ce "))
    return Text(shown.encode(console.encoding, "backslashreplace").decode(console.encoding))


def _table(console: Console, *columns: str) -> Table:
    """A table whose numbers stand to the right; without lines where it is not seen on a terminal."""
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place and name else "left", no_wrap=True)
    return table
