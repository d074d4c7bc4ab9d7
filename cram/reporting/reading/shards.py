"""What a report knows of a shard folder of `cram.prepare`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from tokenizers import Tokenizer

from cram.data.inspect.figures import (
    FateLine,
    LengthHistogram,
    StageLine,
    TokenRanks,
    histogram_lengths,
    list_fates,
    list_stages,
    rank_tokens,
    sort_reasons,
)
from cram.data.inspect.rows import RowText, read_row, spread_rows
from cram.data.preparation.statistics import STATISTICS
from cram.data.preparation.stopwatch import TIMING, TIMING_REMEDY
from cram.data.shards.shards import REMEDY, ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.files.sealed import read_sealed

SEARCHED_TOKENS = 1 << 17  # of the rows among which some are chosen to be shown
TOKENS_LISTED = 25  # of the most frequent tokens, and of the least frequent ones


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a document, and where it comes from: the name of the file, and the line or row."""

    origin: str
    text: str


@dataclass(frozen=True)
class DuplicatePair:
    """A dropped document and the one that it repeats.

    Attributes:
        reason: why it was dropped, such as `near`.
        similarity: share of the word shingles that the two have in common.
        dropped, kept: the documents.
    """

    reason: str
    similarity: float
    dropped: Excerpt
    kept: Excerpt


@dataclass(frozen=True)
class TokenCount:
    """How often a token occurs, and its rank from 1."""

    token: str
    rank: int
    count: int


@dataclass(frozen=True)
class TokenFigures:
    """How often tokens occur.

    Attributes:
        ranks: of all of them.
        named: some, evenly spaced on a log axis, with the last one.
        frequent, rare: the most and the least frequent tokens that occur.
        special: the special tokens by their role.
    """

    ranks: TokenRanks
    named: Sequence[TokenCount]
    frequent: Sequence[TokenCount]
    rare: Sequence[TokenCount]
    special: Mapping[str, str]


@dataclass(frozen=True)
class Packing:
    """How well a way of packing fills rows.

    Attributes:
        kind: `greedy` or `best_fit`.
        fill: share of the positions that hold tokens.
        cut_documents: documents that would fit into a row and are cut.
        measured: whether the rows were made so; otherwise it is computed from the lengths.
    """

    kind: str
    fill: float
    cut_documents: int
    measured: bool


@dataclass(frozen=True)
class Preparation:
    """Time and memory of the preparation.

    Attributes:
        stages: of the process that finished, with their activities.
        seconds: of all stages.
        processes: that did the work.
        peak_bytes: of memory, by kind of process.
        estimate: what was estimated before; None if it was not.
    """

    stages: Sequence[StageLine]
    seconds: float
    processes: int
    peak_bytes: Mapping[str, int]
    estimate: Mapping[str, Any] | None


@dataclass(frozen=True)
class ShardData:
    """A shard folder, as its small files and a few of its rows tell of it.

    Attributes:
        folder: its path as the user wrote it.
        rows, seq_len, vocab_size, tokens, documents: as in `ShardSet`.
        hash: identifies the rows and the tokenizer.
        settings: of the preparation, by dotted key.
        counts: of the manifest.
        sources: name, bytes on the disk and documents of each file.
        mixture: name, weight asked for or None, tokens and share of each source of a list; empty for a single source.
        fates: what became of the documents.
        samples: of dropped and changed documents, by reason.
        pairs: of duplicates.
        packings: the one that was done and the other one.
        lengths: how long documents are.
        tokens_by_rank: how often tokens occur.
        tokenizer: what the manifest says of it.
        held_out_check: what the search for held-out text in the rows found; empty if there is none.
        text_rows: some rows as text.
        shards: name, rows and bytes of each shard.
        preparation: None if the folder does not tell.
    """

    folder: Path
    rows: int
    seq_len: int
    vocab_size: int
    tokens: int
    documents: int
    hash: str
    settings: Sequence[tuple[str, str]]
    counts: Mapping[str, int]
    sources: Sequence[tuple[str, int, int]]
    mixture: Sequence[tuple[str, float | None, int, float]]
    fates: Sequence[FateLine]
    samples: Mapping[str, Sequence[Excerpt]]
    pairs: Sequence[DuplicatePair]
    packings: Sequence[Packing]
    lengths: LengthHistogram
    tokens_by_rank: TokenFigures
    tokenizer: Mapping[str, Any]
    held_out_check: Mapping[str, int]
    text_rows: Sequence[RowText]
    shards: Sequence[tuple[str, int, int]]
    preparation: Preparation | None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name


def read_shards(folder: str | Path) -> ShardData:
    """Read what a shard folder tells of itself.

    The checksums of the small files are compared with the manifest, whose own one must hold too. Shards are not read,
    except for the rows that are shown; `cram.prepare verify=` reads them.

    Raises:
        CramError: the folder is not a shard folder, or its files are missing or damaged.
    """
    try:
        return _read(ShardSet.open(folder))
    except CramError as error:
        # "Run the same command again" would mean this one.
        remedy = "delete the folder and prepare it again with cram.prepare."
        message = str(error).replace(REMEDY, remedy).removeprefix("tokenizer=")
        raise CramError(f"data={message}") from None
    except OSError as error:
        raise CramError(f"data={folder}: {error.filename} cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, SafetensorError) as error:
        raise CramError(
            f"data={folder}: its files are damaged or of another version ({error!r}). Prepare it again with "
            "cram.prepare."
        ) from error


def _read(shards: ShardSet) -> ShardData:
    manifest = shards.manifest
    tokenizer = load_tokenizer(shards.tokenizer_path)
    statistics = read_json(shards.checked_path(STATISTICS))
    return ShardData(
        folder=shards.folder,
        rows=shards.rows,
        seq_len=shards.seq_len,
        vocab_size=shards.vocab_size,
        tokens=shards.tokens,
        documents=shards.documents,
        hash=shards.hash,
        settings=list(_flatten(manifest["settings"])),
        counts=manifest["counts"],
        sources=[(source["name"], source["bytes"], source["documents"]) for source in manifest["sources"]],
        mixture=[(line["name"], line["weight"], line["tokens"], line["share"]) for line in manifest.get("mixture", [])],
        fates=list_fates(manifest),
        samples={
            reason: [_excerpt(sample) for sample in statistics["samples"][reason]]
            for reason in sort_reasons(statistics["samples"])
        },
        pairs=[
            DuplicatePair(pair["reason"], float(pair["similarity"]), _excerpt(pair["dropped"]), _excerpt(pair["kept"]))
            for pair in statistics["duplicates"]
        ],
        packings=[
            Packing(kind, packing["fill"], packing["cut_documents"], packing["measured"])
            for kind, packing in manifest["packing"].items()
        ],
        lengths=histogram_lengths(shards.lengths(), shards.tokens, shards.seq_len),
        tokens_by_rank=_rank(shards, tokenizer),
        tokenizer=manifest["tokenizer"],
        held_out_check=manifest.get("held_out_check", {}),
        text_rows=[read_row(shards, tokenizer, number) for number in _choose_rows(shards, tokenizer)],
        shards=[(shard["file"], shard["rows"], shard["bytes"]) for shard in manifest["shards"]],
        preparation=_read_timing(shards),
    )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as pairs of a dotted key and its value as YAML writes it."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            yield prefix + name, text


def _excerpt(sample: Mapping[str, str]) -> Excerpt:
    return Excerpt(str(sample["origin"]), str(sample["text"]))


def _rank(shards: ShardSet, tokenizer: Tokenizer) -> TokenFigures:
    ranks = rank_tokens(shards.token_counts())
    number = len(ranks.tokens)

    def list_tokens(chosen: Iterable[int]) -> list[TokenCount]:
        ids = [(rank, int(ranks.tokens[rank - 1])) for rank in chosen]
        return [
            TokenCount(tokenizer.id_to_token(token) or str(token), rank, int(ranks.counts[rank - 1]))
            for rank, token in ids
        ]

    return TokenFigures(
        ranks,
        named=list_tokens(ranks.named()),
        frequent=list_tokens(range(1, min(number, TOKENS_LISTED) + 1)),
        rare=list_tokens(range(number, max(0, number - TOKENS_LISTED), -1)),
        special=SpecialTokens.of(tokenizer).names(tokenizer),
    )


def _choose_rows(shards: ShardSet, tokenizer: Tokenizer) -> list[int]:
    """Choose rows to show: some spread over the folder, one with many documents, and one with padding if there is one.

    The last two are searched for among `SEARCHED_TOKENS` tokens in the middle of the folder, and in its last row.
    """
    middle = shards.rows // 2
    end = min(middle + max(1, SEARCHED_TOKENS // shards.seq_len), shards.rows)
    searched = np.append(np.arange(middle, end), shards.rows - 1)
    tokens, documents = shards.read(searched)
    padding = (tokens == SpecialTokens.of(tokenizer).pad).sum(axis=1)
    chosen = {*spread_rows(shards.rows), int(searched[documents.max(axis=1).argmax()])}
    if padding.any():
        chosen.add(int(searched[padding.argmax()]))
    return sorted(chosen)


def _read_timing(shards: ShardSet) -> Preparation | None:
    if not (shards.folder / TIMING).is_file():
        return None
    timing = read_sealed(shards.folder / TIMING, f"; {TIMING_REMEDY}")
    return Preparation(
        stages=list_stages(timing, shards.manifest["counts"]),
        seconds=sum(timing["wall_seconds"].values()),
        processes=timing["processes"],
        peak_bytes=timing["peak_bytes"],
        estimate=timing.get("estimate"),
    )
