"""What a preparation will take: text, tokens, time, disk and download, as far as a small sample tells."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from cram.config.data import DataConfig
from cram.data.cleaning.dedupe import HASHES
from cram.data.preparation.speed_sample import Clock, Speeds, TextSample, measure_speeds, read_sample
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.text.source import Source
from cram.errors import CramError
from cram.machine.host import cores

SHORT_BYTES = 200_000_000  # less text takes about half a minute, and is not estimated beforehand
MARGIN = 1.1  # how much more text is scanned than a token limit needs by the first sample, for what is dropped later
ESTIMATE = "estimate.json"  # in the journal, so that a preparation that is continued can be compared with it
# New words grow with the text to this power (Heaps' law), and so does what they cost.
NEW_WORDS_POWER = 0.7
TRAINED_TOKENS = 0.97  # tokens with the final vocabulary, for each token with that of the sample
# CPU seconds of what the sample does not go through, measured on an Intel Xeon with AVX-512.
START_SECONDS = 1.0  # for the processes of a stage
PACK_SECONDS = 75e-9  # for each token: packed, written, and searched for held-out text
DUPLICATE_SECONDS = 6e-6  # for each document
ORDER_SECONDS = 1.2e-6  # for each row
SPEED_SPREAD = 0.2  # how far the speeds of the sample may be from those of the whole, as a share
JOURNAL_BYTES = HASHES * 4 + 64  # for each document
ORDER_BYTES = 3 * 8  # for each row


@dataclass(frozen=True)
class Estimate:
    """What a preparation will take.

    Attributes:
        text_bytes: bytes (UTF-8) of the text that is read.
        is_whole: whether the size of the text is known; otherwise all figures are for a gigabyte of it.
        documents: of that text.
        tokens: in the rows, of one epoch.
        seconds: by stage, named as in timing.json.
        spread: how far the seconds may be off, as a share of them.
        text_spread: the same for the other figures.
        disk_bytes: of the shards and, while they are made, of the journal.
        download_bytes: that come over the network; 0 for local files. None if it is unknown.
        processes: that the work is shared by.
        sampled_bytes: of the text that the estimate was made from.
        sampled_parts: of the source.
    """

    text_bytes: float
    is_whole: bool
    documents: float
    tokens: float
    seconds: dict[str, float]
    spread: float
    text_spread: float
    disk_bytes: float
    download_bytes: float | None
    processes: int
    sampled_bytes: int
    sampled_parts: int

    def describe(self, free: int) -> list[str]:
        """Describe the estimate in two or three lines.

        Args:
            free: bytes that are free on the disk.
        """
        total = sum(self.seconds.values())
        low, high = total * (1 - self.spread), total * (1 + self.spread)
        stages = ", ".join(f"{stage} {format_time(seconds)}" for stage, seconds in self.seconds.items() if seconds >= 1)
        text = format_bytes(self.text_bytes) if self.is_whole else "each GB"
        lines = [
            f"{text} of text has about {format_number(self.documents)} documents and {format_number(self.tokens)} "
            f"tokens, and needs {format_bytes(self.disk_bytes)} on the disk ({format_bytes(free)} are free)",
            f"{format_time(low)} to {format_time(high)} with {self.processes} process(es)"
            f"{'' if self.is_whole else ' for each GB, as the size of the source is unknown'}: {stages}",
        ]
        if self.download_bytes is None:
            lines.append("the text is read twice over the network, and the size of the download is unknown")
        elif self.download_bytes:
            lines.append(f"{format_bytes(self.download_bytes)} of download, as the text is read twice over the network")
        return lines


def estimate_preparation(
    source: Source,
    data: DataConfig,
    tokenizer: TokenizerSource,
    processes: int,
    least_bytes: float = SHORT_BYTES,
    clock: Clock = perf_counter,
) -> Estimate | None:
    """Estimate what a preparation takes on this machine, from a sample that takes one to three seconds.

    Args:
        source: the text.
        data: how it is prepared.
        tokenizer: the tokenizer to load, or how to train one.
        processes: that the work is shared by.
        least_bytes: of text; for less of it nothing is measured.
        clock: returns seconds.

    Returns:
        The estimate; None if there is too little text for one.

    Raises:
        CramError: something cannot be read, or the tokenizer is at fault.
    """
    sample = read_sample(source, clock)
    if sample is None or (sample.text_bytes is not None and sample.text_bytes < least_bytes):
        return None
    speeds = measure_speeds(sample, data, tokenizer, clock)
    if speeds is None:
        return None
    size = _download_size(source)
    download = None if size is None else 2 * size / sample.text_bytes if sample.text_bytes else 0.0
    return extrapolate(sample, speeds, data, tokenizer, processes, download)


def tell_estimate(
    source: Source, data: DataConfig, tokenizer: TokenizerSource, processes: int
) -> dict[str, Any] | None:
    """Print what a preparation will take, before it starts.

    Args:
        source: the text.
        data: how it is prepared, and where the shards will be.
        tokenizer: the tokenizer to load, or how to train one.
        processes: that the work is shared by.

    Returns:
        What timing.json keeps of the estimate; None if there is too little text for one.

    Raises:
        CramError: the shards do not fit on the disk, something cannot be read, or the tokenizer is at fault.
    """
    estimate = estimate_preparation(source, data, tokenizer, processes)
    if estimate is None:
        return None
    for line in estimate.describe(check_disk(estimate, Path(data.dir))):
        print(f"estimate: {line}", flush=True)
    return asdict(estimate)


def extrapolate(
    sample: TextSample,
    speeds: Speeds,
    data: DataConfig,
    tokenizer: TokenizerSource,
    processes: int,
    download: float | None = 0.0,
) -> Estimate:
    """Compute from a sample and its speeds what all of the text takes.

    Args:
        sample: tells how much text there is.
        speeds: of one process.
        data: of which `tokens`, `seq_len` and `dedupe` count.
        tokenizer: of which the size of the sample counts.
        processes: that the work is shared by.
        download: bytes over the network for each byte of text; None if unknown.
    """
    cpus = min(cores(), processes + 1) if data.engine == "local" else processes + 1
    bytes_per_token = speeds.bytes_per_token / (1 if tokenizer.path else TRAINED_TOKENS)
    limit = data.tokens and data.tokens * bytes_per_token * MARGIN
    sizes = [size for size in (sample.text_bytes, limit) if size is not None]
    text = min(sizes) if sizes else 1e9
    tokens = min(text * sample.usable / bytes_per_token, data.tokens or text)
    documents = text / sample.document_bytes
    vocabulary = 0.0
    if not tokenizer.path:
        trained = min(text, tokenizer.wordpiece.sample_bytes)
        growth = max(1.0, trained / speeds.measured_bytes) ** NEW_WORDS_POWER
        vocabulary = _share_work(trained, sample.read_seconds, speeds.scan, processes, cpus) + speeds.train * growth
    packed = min(text, tokens * bytes_per_token)
    own = packed / processes  # every process meets new words by itself
    new_words = speeds.new_words * max(1.0, own / speeds.measured_bytes) ** NEW_WORDS_POWER / own if own else 0.0
    reading = sample.read_seconds + PACK_SECONDS / bytes_per_token
    rows = tokens / data.seq_len
    seconds = {
        "tokenizer": vocabulary,
        "scan": _share_work(text, sample.read_seconds, speeds.scan, processes, cpus),
        "duplicates": documents * DUPLICATE_SECONDS if data.dedupe.exact or data.dedupe.near else 0.0,
        "pack": _share_work(packed, reading, speeds.known_words + new_words, processes, cpus),
        "orders": rows * ORDER_SECONDS,
    }
    is_wide = not tokenizer.path and tokenizer.wordpiece.vocab_size > 2**16
    shards = tokens * ((4 if is_wide else 2) + 1) + rows * ORDER_BYTES
    text_spread = 0.05 + (sample.spread if limit is None or limit > text else 0.0)
    return Estimate(
        text_bytes=text,
        is_whole=bool(sizes),
        documents=documents,
        tokens=tokens,
        seconds=seconds,
        spread=min(0.9, SPEED_SPREAD + text_spread),
        text_spread=text_spread,
        disk_bytes=shards + documents * JOURNAL_BYTES,
        download_bytes=None if download is None else download * text,
        processes=processes,
        sampled_bytes=speeds.measured_bytes,
        sampled_parts=sample.parts,
    )


def check_disk(estimate: Estimate, folder: Path) -> int:
    """Check that the shards fit on the disk, and return how many bytes are free.

    A warning is printed if they may not fit.

    Args:
        estimate: of the preparation.
        folder: where the shards will be, which may not exist yet.

    Raises:
        CramError: they do not fit, even if the estimate is too high.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if not estimate.is_whole:
        return free
    advice = "Choose another data.dir, free some of it, or prepare less text with data.tokens."
    needed = estimate.disk_bytes
    if needed * (1 - estimate.text_spread) > free:
        raise CramError(
            f"data.dir={folder}: the shards need about {format_bytes(needed)}, {format_bytes(free)} are free\n{advice}"
        )
    if needed * (1 + estimate.text_spread) > free:
        print(
            f"warning: data.dir={folder}: the shards may not fit: they need about {format_bytes(needed)}, "
            f"{format_bytes(free)} are free. {advice}",
            flush=True,
        )
    return free


def format_time(seconds: float) -> str:
    """Format a duration that is not known exactly, as `7 s`, `12 min` or `3.4 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:,.1f} h"


def format_bytes(size: float) -> str:
    """Format a number of bytes as `420 MB` or `3.1 GB`."""
    return f"{size / 1e6:.0f} MB" if size < 999.5e6 else f"{size / 1e9:,.1f} GB"


def format_number(number: float) -> str:
    """Format a number that is not known exactly, as `730`, `13,000` or `2.40 billion`."""
    if number >= 999.5e6:
        return f"{number / 1e9:,.2f} billion"
    if number >= 999.5e3:
        return f"{number / 1e6:,.1f} million"
    return f"{float(f'{number:.2g}'):,.0f}"


def _download_size(source: Source) -> float | None:
    """Compute how many bytes come over the network when a source is read once; None if it is unknown."""
    remote = [part.size for part in source.parts if part.is_remote]
    if all(remote):
        return float(sum(remote))
    stated = source.stated_size
    return stated.download_bytes if stated else None


def _share_work(size: float, alone: float, shared: float, processes: int, cpus: int) -> float:
    """Compute the seconds of a stage.

    Args:
        size: bytes of text.
        alone: seconds for each byte that the first process needs.
        shared: seconds for each byte that all processes share.
        processes: how many share it.
        cpus: on which they and the first process run.
    """
    if processes == 1:
        return size * (alone + shared)
    return START_SECONDS + size * max(alone, shared / processes, (alone + shared) / cpus)
