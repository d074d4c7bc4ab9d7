"""Prints a shard folder: what became of the documents, samples of dropped ones, rows as text; and draws two plots."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cram.data.inspect.figures import list_fates, list_stages, printable, sort_reasons
from cram.data.inspect.plots import draw_plots
from cram.data.inspect.rows import RowText, read_row, spread_rows
from cram.data.preparation.samples import FIXED
from cram.data.preparation.statistics import STATISTICS
from cram.data.preparation.stopwatch import TIMING, TIMING_REMEDY
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.files.sealed import read_sealed
from cram.terminal.progress import format_tokens

TITLES = {"boilerplate": "lines cut as boilerplate", FIXED: "C1 controls replaced"}  # of samples that are not dropped
SAMPLES_SHOWN = 3
SAMPLE_LINES = 2.5  # samples are cut to this many lines of the terminal's width
CUT = "..."
LIKE_HELD_OUT = ("near_held_out", "ids_held_out", "window_held_out")  # one line in the short table
NOTABLE_SHARE = 0.001  # of unknown tokens or lost characters; smaller ones are left out of the short form


def print_shards(folder: str | Path, row: int | None = None) -> None:
    """Print a shard folder and draw its plots.

    Args:
        folder: the shard folder.
        row: the number of a row; only that row is printed then, and nothing is drawn.

    Raises:
        CramError: the folder is not a shard folder, or has no such row.
    """
    shards = ShardSet.open(folder)
    console = Console(highlight=False)
    tokenizer = load_tokenizer(shards.tokenizer_path)
    special_names = list(SpecialTokens.of(tokenizer).names(tokenizer).values())
    if row is not None:
        if not 0 <= row < shards.rows:
            raise CramError(f"row={row}: {folder} does not have this row; its rows are 0 to {shards.rows - 1}")
        return _print_row(read_row(shards, tokenizer, row), special_names, console)
    print_summary(shards)
    _print_dropped(shards, console)
    for number in spread_rows(shards.rows):
        _print_row(read_row(shards, tokenizer, number), special_names, console)
    draw_plots(shards, tokenizer)


def print_summary(shards: ShardSet, short: bool = False) -> None:
    """Print what became of the documents, how the rows are filled and where the time was spent.

    Args:
        shards: the shard folder.
        short: leave out details, so that it fits on one screen.
    """
    console = Console(highlight=False)
    counts = shards.manifest["counts"]
    console.print(_printable_text(str(shards.folder), console), soft_wrap=True)
    documents = _document_table(shards, short, console)
    if short:
        documents.box = None
    console.print(documents)
    console.print(
        f"{shards.tokens:,} tokens ({counts['bytes'] / max(1, shards.tokens):.2f} bytes each) "
        f"in {shards.rows:,} rows x {shards.seq_len} tokens, {len(shards.manifest['shards']):,} shard(s)"
    )
    if fixed := counts.get("fixed_documents"):
        console.print(
            f"{counts['fixed_characters']:,} C1 control(s) in {fixed:,} document(s) were replaced by the characters "
            "that they are in Windows-1252"
        )
    for line in shards.manifest.get("mixture", []):
        asked = "" if line["weight"] is None else f" (asked for: {line['weight']:.2%})"
        console.print(_printable_text(f"{line['name']}: {line['share']:.2%} of the tokens{asked}", console))
    _print_unknown(shards, short, console)
    timing = read_sealed(shards.folder / TIMING, f"; {TIMING_REMEDY}") if (shards.folder / TIMING).is_file() else None
    if short:
        _print_packing(shards, console)
    else:
        console.print(_packing_table(shards, console))
    if timing and short:
        seconds = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in timing["wall_seconds"].items())
        console.print(f"time: {seconds}")
    elif timing:
        console.print(_time_table(timing, counts, console))
    if timing:
        peak = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in timing["peak_bytes"].items() if size)
        console.print(f"{timing['processes']} process(es), peak memory: {peak}")
        if estimate := timing.get("estimate"):
            told, taken = sum(estimate["seconds"].values()), sum(timing["wall_seconds"].values())
            tokens = format_tokens(estimate["tokens"])
            console.print(f"estimated before: {told:.0f} s and {tokens} tokens; the last process took {taken:.0f} s")


def _document_table(shards: ShardSet, short: bool, console: Console) -> Table:
    manifest = shards.manifest
    if short and (entries := [manifest["dropped"][name] for name in LIKE_HELD_OUT if name in manifest["dropped"]]):
        others = {name: entry for name, entry in manifest["dropped"].items() if name not in LIKE_HELD_OUT}
        joined = {key: sum(entry[key] for entry in entries) for key in ("documents", "bytes")}
        manifest = manifest | {"dropped": others | {"as held out": joined}}
    table = _new_table(console, "", "documents", "share", "bytes")
    for line in list_fates(manifest):
        if line.documents or line.name in ("read", "held out", "kept"):
            name = f"dropped: {line.reason}" if line.reason else line.name
            share = line.documents / max(1, manifest["counts"]["documents_in"])
            table.add_row(name, f"{line.documents:,}", f"{share:.2%}", "" if line.bytes is None else f"{line.bytes:,}")
    return table


def _packing_table(shards: ShardSet, console: Console) -> Table:
    table = _new_table(console, "packing", "positions filled", "documents cut", "")
    for kind, packing in shards.manifest["packing"].items():
        origin = "measured" if packing["measured"] else "computed from the lengths"
        table.add_row(kind, f"{packing['fill']:.3%}", f"{packing['cut_documents']:,}", origin)
    return table


def _print_packing(shards: ShardSet, console: Console) -> None:
    for kind, packing in sorted(shards.manifest["packing"].items(), key=lambda item: not item[1]["measured"]):
        name = kind if packing["measured"] else f"{kind} instead"
        cut = f"{packing['cut_documents']:,} documents cut that fit into a row"
        console.print(f"packing {name}: {packing['fill']:.2%} filled, {cut}")


def _print_unknown(shards: ShardSet, short: bool, console: Console) -> None:
    """Print how much the tokenizer does not know; in the short form only a notable share."""
    tokenizer = shards.manifest["tokenizer"]
    if "unknown_tokens" not in tokenizer:
        return
    unknown, lost = tokenizer["unknown_tokens"], tokenizer["lost_characters"]
    if not short or max(unknown, lost) >= NOTABLE_SHARE:
        console.print(
            f"{unknown:.2%} of the tokens are unknown; {lost:.2%} of a sample's characters are lost, "
            "because they are unknown or dropped"
        )


def _time_table(timing: dict[str, Any], counts: dict[str, int], console: Console) -> Table:
    """Wall seconds of each stage in the process that finished, and the seconds of its activities in all processes."""
    table = _new_table(console, "time", "seconds", "MB/s of text")
    for line in list_stages(timing, counts):
        speed = "" if line.speed is None else f"{line.speed / 1e6:,.1f}"
        table.add_row("  " * line.is_activity + line.name, f"{line.seconds:.1f}", speed)
    return table


def _print_dropped(shards: ShardSet, console: Console) -> None:
    """Print a few dropped documents of each reason, shortened, and a few duplicates with the document they repeat."""
    statistics = read_json(shards.checked_path(STATISTICS))
    for name in sort_reasons(statistics["samples"]):
        samples = statistics["samples"][name]
        title = TITLES.get(name, f"dropped: {name}")
        console.print(f"\n{title} ({len(samples[:SAMPLES_SHOWN])} of the {len(samples)} samples in {STATISTICS})")
        for sample in samples[:SAMPLES_SHOWN]:
            _print_sample("", sample, console)
    if pairs := statistics["duplicates"]:
        # Evenly spaced, because the pairs of one reason follow each other.
        chosen = np.unique(np.linspace(0, len(pairs) - 1, SAMPLES_SHOWN).astype(int)).tolist()
        console.print(f"\nduplicates ({len(chosen)} of the {len(pairs)} pairs in {STATISTICS})")
        for pair in map(pairs.__getitem__, chosen):
            _print_sample(f"{pair['reason']}, similarity {pair['similarity']:.3f}, dropped: ", pair["dropped"], console)
            _print_sample("  a duplicate of: ", pair["kept"], console)


def _print_sample(label: str, sample: dict[str, str], console: Console) -> None:
    console.print(_printable_text(f"  {label}{sample['origin']}", console), soft_wrap=True)
    text = _printable_text(sample["text"], console)
    longest = int(SAMPLE_LINES * console.width)
    if text.cell_len > longest:
        text.truncate(longest - len(CUT))
        text.append(CUT)
    _print_beside("    | ", text, console)


def _print_row(row: RowText, special_names: list[str], console: Console) -> None:
    """Print a row, each of its documents after its index; a document that began in an earlier row is marked."""
    documents = len(row.documents)
    console.print(f"\nrow {row.number:,}: {row.tokens} tokens of {documents} document(s), {row.padding} of padding")
    for index, document in enumerate(row.documents):
        text = _printable_text(document.text, console)
        text.highlight_words(special_names, "cyan")
        _print_beside(f"{index:>3} {'' if document.begins else 'continued':<9} | ", text, console)


def _print_beside(label: str, text: Text, console: Console) -> None:
    """Print a text after a label: wrapped beside it on a terminal, on one line elsewhere."""
    if console.is_terminal:
        table = Table.grid()
        table.add_column(no_wrap=True)
        table.add_row(Text(label, "dim"), text)
        console.print(table)
    else:
        console.print(Text(label) + text, soft_wrap=True)


def _printable_text(text: str, console: Console) -> Text:
    """Text without markup that the console can show: line ends become a sign, other characters are escaped."""
    escaped = printable(text.replace("\n", " \u23ce "))
    return Text(escaped.encode(console.encoding, "backslashreplace").decode(console.encoding))


def _new_table(console: Console, *columns: str) -> Table:
    """An empty table whose numbers are aligned to the right; without lines if the output is not a terminal."""
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index and name else "left", no_wrap=True)
    return table
