"""The sections on a shard folder: where its text comes from, what became of it, and what it cost."""

from collections.abc import Callable

from cram.data.inspect.figures import printable
from cram.data.preparation.statistics import STATISTICS
from cram.data.preparation.stopwatch import TIMING
from cram.data.shards.shards import COUNTS, HELD_OUT, MANIFEST, TOKENIZER
from cram.reporting.page.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Figure,
    Fold,
    Headline,
    Links,
    Section,
    Table,
    Text,
)
from cram.reporting.reading.shards import Preparation, ShardData
from cram.reporting.sections.documents import document_section, duplicate_section
from cram.reporting.sections.formats import format_bytes, format_large, format_seconds
from cram.reporting.sections.tokens import length_section, row_section, token_section

FILES_LISTED = 100  # of the sources; a corpus may have thousands
PROCESSES = {"this process": "the main process"}  # which wrote timing.json
LEAST_SECONDS = 0.05  # of a stage whose time is told
FILES = (
    (MANIFEST, "settings, counts, and the checksum of every file"),
    (STATISTICS, "all samples and pairs of duplicates"),
    (TIMING, "times of the preparation"),
    (HELD_OUT, "the held-out documents"),
    (TOKENIZER, "the tokenizer of the rows"),
    (COUNTS, "how often each token and each length of a document occurs"),
)


def data_sections(shards: ShardData) -> list[Section]:
    """The sections of a shard folder."""
    sections = [
        _overview(shards),
        document_section(shards),
        duplicate_section(shards),
        length_section(shards),
        token_section(shards),
        row_section(shards),
        _held_out(shards),
        _preparation(shards),
    ]
    return [section for section in sections if section.blocks]


def _overview(shards: ShardData) -> Section:
    counts = shards.counts
    read, kept = counts["documents_in"], counts["documents"]
    measured = [packing for packing in shards.packings if packing.measured]
    headline = Headline(
        [
            Figure("tokens to train on", format_large(shards.tokens), "", _bytes_per_token(shards)),
            Figure("documents kept", f"{kept:,}", "", f"{kept / max(1, read):.1%} of {read:,} that were read"),
            Figure("rows", f"{shards.rows:,}", "", f"of {shards.seq_len:,} tokens"),
            Figure("held out", f"{counts['held_out_documents']:,}", "documents", "never trained on"),
            *(Figure("positions filled", f"{packing.fill:.3%}", "", f"{packing.kind} packing") for packing in measured),
            Figure("vocabulary", f"{shards.vocab_size:,}", "ids", _tokenizer_origin(shards)),
        ]
    )
    return Section("data", f"Data: {printable(shards.name)}", [headline, *_mixture(shards), *_sources(shards)])


def _bytes_per_token(shards: ShardData) -> str:
    return f"{shards.counts['bytes'] / max(1, shards.tokens):.2f} bytes of text each"


def _tokenizer_origin(shards: ShardData) -> str:
    return "trained on this text" if shards.tokenizer.get("trained_here") else "a tokenizer that was given"


def _mixture(shards: ShardData) -> list[Block]:
    """What each source of a list asked for, and what it got."""
    if not shards.mixture:
        return []
    rows = [
        [
            Cell(printable(name)),
            Cell("the rest" if weight is None else f"{weight:.2%}", weight),
            Cell(f"{share:.2%}", share),
            Cell("" if weight is None else f"{share - weight:+.2%}", None if weight is None else share - weight),
            Cell(f"{tokens:,}", tokens),
        ]
        for name, weight, tokens, share in shards.mixture
    ]
    columns = [
        Column("source"),
        Column("asked for", numeric=True),
        Column("share of the tokens", numeric=True),
        Column("difference", numeric=True),
        Column("tokens", numeric=True),
    ]
    return [Table(columns, rows, "What each source asked for and got")]


def _sources(shards: ShardData) -> list[Block]:
    largest = sorted(shards.sources, key=lambda source: -source[1])[:FILES_LISTED]
    rows = [
        [Cell(printable(name)), Cell(format_bytes(size), size), Cell(f"{documents:,}", documents)]
        for name, size, documents in largest
    ]
    columns = [Column("file"), Column("on the disk", numeric=True), Column("documents read", numeric=True)]
    left_out = len(shards.sources) - len(rows)
    note = f"The {left_out:,} smaller files are in {MANIFEST}." if left_out else ""
    table = Table(columns, rows, "" if len(rows) > 8 else "Files that were read", note)
    return [Fold(f"The {len(shards.sources):,} files that were read", [table])] if len(rows) > 8 else [table]


def _held_out(shards: ShardData) -> Section:
    check = shards.held_out_check
    if not check:
        return Section("data-held-out", "Held-out text", [])
    clean = not check["sequences_found"] and not check["windows_found"]
    boilerplate = check.get("boilerplate_documents", 0)
    sentence = (
        f"The rows were searched for {check['documents']:,} held-out documents, whole and in {check['windows']:,} "
        "windows of consecutive tokens. "
        + (
            "Neither a whole document nor a window was found, apart from known boilerplate."
            if clean
            else f"Found: {check['sequences_found']:,} whole documents and {check['windows_found']:,} windows."
        )
    )
    facts = Facts(
        [
            ("held-out documents", f"{shards.counts['held_out_documents']:,}"),
            ("their text", format_bytes(shards.counts["held_out_bytes"])),
            ("windows that are boilerplate", f"{check.get('boilerplate_windows', 0):,} in {boilerplate:,} documents"),
        ]
    )
    title = "No held-out text is in the rows" if clean else "Held-out text is in the rows"
    return Section("data-held-out", title, [Text(sentence, "plain" if clean else "bad"), facts])


def _preparation(shards: ShardData) -> Section:
    blocks: list[Block] = []
    if shards.preparation:
        blocks += [_stages(shards.preparation), *_estimate(shards, shards.preparation)]
        memory = [
            (f"peak memory of {PROCESSES.get(name, name)}", format_bytes(size))
            for name, size in shards.preparation.peak_bytes.items()
            if size
        ]
        blocks.append(Facts([("processes", f"{shards.preparation.processes:,}"), *memory]))
    settings = [[Cell(name), Cell(printable(value))] for name, value in shards.settings]
    blocks += [
        Fold("Settings of the preparation", [Table([Column("setting"), Column("value")], settings)]),
        Fold(
            f"The {len(shards.shards):,} shards",
            [
                Table(
                    [Column("shard"), Column("rows", numeric=True), Column("size", numeric=True)],
                    [
                        [Cell(name), Cell(f"{rows:,}", rows), Cell(format_bytes(size), size)]
                        for name, rows, size in shards.shards
                    ],
                )
            ],
        ),
        Links([(name, name, meaning) for name, meaning in FILES if (shards.folder / name).is_file()], "Files"),
    ]
    title = (
        f"The preparation took {format_seconds(shards.preparation.seconds)}" if shards.preparation else "Preparation"
    )
    return Section("data-preparation", title, blocks)


def _stages(preparation: Preparation) -> Table:
    rows = [
        [
            Cell(f"– {line.name}" if line.is_activity else line.name, tone="note" if line.is_activity else "plain"),
            Cell(f"{line.seconds:.1f}", line.seconds),
            Cell("" if line.speed is None else f"{line.speed / 1e6:,.1f}", line.speed),
        ]
        for line in preparation.stages
    ]
    return Table(
        [Column("stage"), Column("time", "s", numeric=True), Column("speed", "MB of text per s", numeric=True)],
        rows,
        "Where the time went",
        "Stages are timed by the wall, in the process that finished. Activities are summed over all processes.",
        sortable=False,
    )


def _estimate(shards: ShardData, preparation: Preparation) -> list[Block]:
    """The estimate that was told before the work began, beside what came of it."""
    estimate = preparation.estimate
    if not estimate:
        return []
    outcome = {line.name: line.seconds for line in preparation.stages if not line.is_activity}
    told = {name: float(seconds) for name, seconds in estimate["seconds"].items()}
    rows = [
        _compare(name, seconds, outcome[name], format_seconds)
        for name, seconds in told.items()
        if name in outcome and max(seconds, outcome[name]) >= LEAST_SECONDS
    ]
    rows.append(_compare("all stages", sum(told.values()), preparation.seconds, format_seconds))
    if estimate["is_whole"]:
        rows.append(_compare("tokens", estimate["tokens"], shards.tokens, format_large))
    note = (
        f"From a sample of {format_bytes(estimate['sampled_bytes'])}. Times were told to be within "
        f"{estimate['spread']:.0%}. Work that other programs did at the same time is in the outcome."
    )
    columns = [Column("what"), *(Column(name, numeric=True) for name in ("estimated", "outcome", "difference"))]
    return [Table(columns, rows, "The estimate and the outcome", note, sortable=False)]


def _compare(name: str, estimated: float, outcome: float, write: Callable[[float], str]) -> list[Cell]:
    difference = outcome / estimated - 1 if estimated else None
    text = "" if difference is None else f"{difference:+.0%}"
    return [Cell(name), Cell(write(estimated)), Cell(write(outcome)), Cell(text)]
