"""Text -> tokenizer -> filters and deduplication -> packed rows -> a shard folder, once for each source and settings.

Every stage keeps what it has done in a hidden folder, so that a preparation that was killed, anywhere, goes on there
and ends with the same bytes; when all is done the folder gets its name.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer

from cram.config.data import DataConfig, SpecialConfig, WordPieceConfig
from cram.data.cleaning.decontaminate import Contamination
from cram.data.cleaning.held_out_split import too_few
from cram.data.cleaning.word_hashes import Splitter, normalizer_of
from cram.data.preparation.fates import Decision, decide
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.folder import alone
from cram.data.preparation.leaks import BOILERPLATE_FILE, HeldOutIds, check_rows
from cram.data.preparation.rows import RowWriter
from cram.data.preparation.scan import BROKEN, EMPTY, HELD_OUT, KEPT, Scanned, Scanner
from cram.data.preparation.second_pass import Encoder, KeptDocuments, held_out_ids
from cram.data.preparation.statistics import STATISTICS, account
from cram.data.preparation.stopwatch import TIMING
from cram.data.preparation.vocabulary import Vocabulary, make_vocabulary, nothing_left
from cram.data.preparation.workers import Workers
from cram.data.shards.mapped_arrays import read_kept
from cram.data.shards.order import write_orders
from cram.data.shards.pack import make_packer
from cram.data.shards.shards import FORMAT_VERSION, MANIFEST, HeldOut, ShardSet, ShardWriter
from cram.data.special import SpecialTokens, vocabulary_size
from cram.data.text.hub_source import HubSource
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import sha256_bytes, to_json
from cram.files.limits import report_disk_errors
from cram.files.sealed import write_sealed
from cram.machine.host import cores, peak_host_memory
from cram.terminal.progress import Progress

SMALL_BYTES = 16_000_000  # sources on the disk that are not worth the start of further processes
MARGIN = 1.1  # text scanned for a token limit: what duplicates and filters take away behind the first sample
NOT_CONTENT = ("source", "dir", "epochs", "order", "on_error", "processes")  # settings the shards do not depend on
HELD_OUT_IDS = "held_out_ids.safetensors"
JOURNAL = "journal"  # what the stages keep for a preparation that goes on; gone when the shards are done


def prepare_shards(
    data: DataConfig,
    wordpiece: WordPieceConfig,
    tokenizer: str | None,
    report: Progress,
    special: SpecialConfig | None = None,
) -> ShardSet:
    """The shards of a source; made if they are not there yet, whole or not at all.

    The folder's name in `data.dir` ends in a hash of the source's content and of all settings that matter, so
    that a change of either gives another folder. `tokenizer` is the path of a tokenizer.json, None to train one.
    Of several processes that want the same shards one makes them and the others wait.

    Raises CramError for sources, settings and tokenizers at fault, and when the disk is full.
    """
    special = special or SpecialConfig()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # left out, the library may encode on one core
    source = open_source(data.source, data.text_field, data.document, data.on_error)
    about = {"fingerprint": source.fingerprint(), "settings": _settings(data, wordpiece, tokenizer, special)}
    digest = sha256(to_json(about, sort_keys=True).encode()).hexdigest()
    folder = Path(data.dir) / f"{_slug(data.source)}-{digest[:12]}"
    if not folder.is_dir() and (earlier := _prepared_earlier(source, data, about)):
        folder = earlier
    if not folder.is_dir():
        with report_disk_errors(folder.parent, "data.dir"), alone(folder):
            if not folder.is_dir():
                named = about | ({"source": data.source} if isinstance(source, HubSource) else {})
                _Preparation(source, data, wordpiece, tokenizer, special, folder, report).run(named)
    shutil.rmtree(folder / JOURNAL, ignore_errors=True)
    shards = ShardSet.open(folder)
    if data.on_error == "stop" and (broken := shards.manifest["dropped"].get("broken")):
        raise CramError(
            f"{folder}: prepared with {broken['documents']} broken record(s) or file(s) left out\n"
            f"repair data.source={data.source!r}, or accept it with data.on_error=skip"
        )
    return shards


def _prepared_earlier(source: Source, data: DataConfig, about: dict[str, Any]) -> Path | None:
    """The newest shards of a Hub data set with these settings, where the Hub cannot be asked what is newer."""
    if not isinstance(source, HubSource) or source.reachable:
        return None
    folders = [path.parent for path in Path(data.dir).glob(f"{_slug(data.source)}-*/manifest.json")]
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        manifest = ShardSet.open(folder).manifest
        if manifest["settings"] == about["settings"] and manifest.get("source") == data.source:
            print(f"the Hub cannot be asked for {data.source}; taking {folder}, which was prepared earlier", flush=True)
            return folder
    return None


class _Preparation:
    """The stages, in order, in a folder that is renamed when they are done."""

    def __init__(
        self,
        source: Source,
        data: DataConfig,
        wordpiece: WordPieceConfig,
        tokenizer: str | None,
        special: SpecialConfig,
        folder: Path,
        report: Progress,
    ):
        self._source = source
        self._data = data
        self._wordpiece = wordpiece
        self._tokenizer = tokenizer
        self._special = special
        self._final = folder
        self._folder = folder.with_name(f".{folder.name}.partial")
        self._journal = self._folder / JOURNAL
        self._report = report
        self._wall: dict[str, float] = {}
        size = sum(part.size for part in source.parts)
        self._processes = data.processes or (1 if 0 < size < SMALL_BYTES else cores())

    def run(self, about: dict[str, Any]) -> None:
        """Do what is missing, and give the folder its name."""
        if self._journal.is_dir():
            print(f"going on with the preparation of {self._final}", flush=True)
        self._journal.mkdir(parents=True, exist_ok=True)
        with self._timed("tokenizer"):
            vocabulary = self._vocabulary()
        segments = Segments(self._journal)
        with self._timed("scan"):
            limit = self._data.tokens and int(self._data.tokens * vocabulary.bytes_per_token * MARGIN)
            split = Splitter(normalizer_of(Tokenizer.from_str(vocabulary.definition).normalizer))
            segments.scan(self._source, limit, Scanner(self._data, split), self._processes, self._report)
        if not sum(segments.taken):
            raise self._nothing_left(0, 0)
        with self._timed("duplicates"):
            decision = decide(segments, self._data, self._journal, self._report)
        with self._timed("pack"):
            found = segments.found()
            held_out = self._held_out_ids(vocabulary, found)
            writer, rows = self._pack(vocabulary, segments, decision)
            boilerplate = save({"windows": held_out.windows[rows.boilerplate]})
            writer.file(BOILERPLATE_FILE, boilerplate)
        if not rows.counts.documents:
            readable = ~np.isin(decision.fates, (EMPTY, BROKEN))
            raise self._nothing_left(int(readable.sum()), int((decision.fates == HELD_OUT).sum()))
        documents, statistics = account(self._source, segments, decision, found, rows, self._data)
        writer.file(STATISTICS, to_json(statistics, indent=1).encode())
        definition = vocabulary.definition.encode()
        trained = {
            "sha256": sha256_bytes(definition),
            "trained_here": self._tokenizer is None,
            "lost_characters": vocabulary.lost,
            "unknown_tokens": self._unknown_tokens(vocabulary, writer),
        }
        manifest = about | {"tokenizer": trained} | documents
        texts = [HeldOut(text, sha256(text.encode()).hexdigest()) for text in found.held_out.values()]
        writer.finish(definition, texts, manifest, rows.lengths)
        with self._timed("pack"):
            shards = ShardSet.open(self._folder)
            checked = {"held_out_check": asdict(check_rows(shards, held_out))}
            write_sealed(self._folder / MANIFEST, shards.manifest | checked)
        counts = documents["counts"]
        if few := too_few(counts["held_out_documents"], counts["held_out_bytes"]):
            print(f"warning: {few}", flush=True)
        with self._timed("orders"):
            write_orders(ShardSet.open(self._folder))
        self._write_timing(found.seconds, rows.counts.seconds)
        self._folder.rename(self._final)

    def _vocabulary(self) -> Vocabulary:
        try:
            return make_vocabulary(
                self._source,
                self._data,
                self._wordpiece,
                self._tokenizer,
                self._journal,
                self._report,
                self._special,
            )
        except CramError:  # the first stage: there is nothing to go on with
            shutil.rmtree(self._folder)
            raise

    def _nothing_left(self, documents: int, held_out: int) -> CramError:
        """The error, after the folder is gone: there is nothing to go on with."""
        shutil.rmtree(self._folder)
        return nothing_left(self._data, documents, held_out)

    def _held_out_ids(self, vocabulary: Vocabulary, found: Scanned) -> HeldOutIds:
        """Those of the texts that are stored, in a file that all processes map."""
        path = self._journal / HELD_OUT_IDS
        there = read_kept(path, HeldOutIds.load)
        if there is None:
            held_out_ids(found.held_out.values(), vocabulary.definition).save(path)
        return there or HeldOutIds.load(path)

    def _pack(self, vocabulary: Vocabulary, segments: Segments, decision: Decision) -> tuple[ShardWriter, RowWriter]:
        """The second pass over the documents; returns what it wrote with, the last rows written."""
        data, definition = self._data, vocabulary.definition
        tokenizer = Tokenizer.from_str(definition)
        pad = SpecialTokens.of(tokenizer).pad
        writer = ShardWriter(self._folder, data.seq_len, vocabulary_size(tokenizer), pad)
        kept = decision.fates == KEPT
        packer = make_packer(data.packing, data.seq_len, pad)
        rows = RowWriter(self._journal, writer, packer, data.seq_len, segments.shares(kept), data.tokens)
        shown = {number for pair in decision.pairs for number in pair[:2]}
        documents = KeptDocuments(self._source.parts, kept, segments.taken, shown, rows.cursor)
        total, done = segments.kept_bytes(kept, rows.cursor)
        with (
            self._report.stage("tokenizing and packing", total, "bytes") as stage,
            Workers(Encoder(definition, data.filters, self._journal / HELD_OUT_IDS), self._processes) as workers,
        ):
            stage.advance(done)
            for note, encoded in workers.map(documents):
                rows.add(encoded, note)
                stage.advance(note.progress)
            rows.counts.excerpts |= documents.excerpts
            rows.finish()
        if data.tokens and rows.counts.tokens < data.tokens and not segments.exhausted:
            print(
                f"data.tokens={data.tokens}: {rows.counts.tokens} are left of the text that was read for them, more of "
                "it was dropped than its beginning promised; ask for more, or see why with show=",
                flush=True,
            )
        return writer, rows

    def _unknown_tokens(self, vocabulary: Vocabulary, writer: ShardWriter) -> float:
        """Their share of the tokens in the rows."""
        special = SpecialTokens.of(Tokenizer.from_str(vocabulary.definition))
        counts, _ = writer.state()
        text = int(np.delete(counts, special.pad).sum())
        return 0.0 if special.unk is None else int(counts[special.unk]) / max(1, text)

    def _write_timing(self, scanned: dict[str, float], packed: dict[str, float]) -> None:
        """`timing.json`: what a report needs and no reader of the shards; it differs from run to run."""
        timing = {"processes": self._processes, "wall_seconds": self._wall, "peak_bytes": peak_host_memory()}
        timing |= {"scan_seconds": scanned, "pack_seconds": packed}
        write_sealed(self._folder / TIMING, timing)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self._wall[stage] = self._wall.get(stage, 0.0) + perf_counter() - began


def _settings(
    data: DataConfig, wordpiece: WordPieceConfig, tokenizer: str | None, special: SpecialConfig
) -> dict[str, Any]:
    """What the content of the shards depends on, beside the source."""
    chosen = {name: value for name, value in asdict(data).items() if name not in NOT_CONTENT}
    if data.dedupe.decontaminate:
        chosen["dedupe"]["decontaminate"] = Contamination(data.dedupe.decontaminate).fingerprint
    return {
        "format": FORMAT_VERSION,
        **chosen,
        "tokenizer": asdict(wordpiece) if tokenizer is None else _definition_hash(tokenizer, special),
    }


def _definition_hash(tokenizer: str, special: SpecialConfig) -> str:
    """Of a given tokenizer with the roles of its special tokens, which files beside it say too."""
    return sha256_bytes(load_tokenizer(tokenizer, special).to_str().encode())


def _slug(source: str) -> str:
    """The readable part of a folder's name: the words in the last two steps of the source's path."""
    return "-".join(re.findall(r"[a-z0-9_]+", "/".join(source.lower().split("/")[-2:])))[:48] or "text"
