"""From text to a shard folder: vocabulary, first pass, duplicates, second pass, manifest, orders.

A preparation works in a hidden folder and renames it when all is done, so a shard folder is complete or absent. Every
stage keeps its results in the hidden folder's journal. A preparation that was killed at any point continues from there
and ends with the same bytes.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from tokenizers import Tokenizer

from cram.config.data import DataConfig
from cram.data.cleaning.held_out_split import describe_shortage
from cram.data.cleaning.word_hashes import WordSplitter, serialize_normalizer
from cram.data.preparation.decision import Decision, decide_fates
from cram.data.preparation.engine import choose_engine
from cram.data.preparation.estimate import ESTIMATE, MARGIN, tell_estimate
from cram.data.preparation.fates import Fate
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.folder import describe_content, find_folder, lock_folder
from cram.data.preparation.held_out_search import BOILERPLATE_FILE, HeldOutIndex, check_rows
from cram.data.preparation.mixture import GroupRate, bytes_to_scan, measure_groups, share_tokens
from cram.data.preparation.row_writer import RowWriter
from cram.data.preparation.scan import Scanner, ScanResult
from cram.data.preparation.second_pass import SLOW_TOKENIZER, DocumentTokenizer, KeptDocumentReader, index_held_out
from cram.data.preparation.statistics import STATISTICS, collect_samples, summarize_documents
from cram.data.preparation.stopwatch import TIMING
from cram.data.preparation.vocabulary import TokenizerSource, Vocabulary, make_vocabulary, nothing_left
from cram.data.shards.mapped_arrays import read_if_intact
from cram.data.shards.order import write_orders
from cram.data.shards.pack import make_packer
from cram.data.shards.shards import MANIFEST, HeldOutDocument, ShardSet, ShardWriter
from cram.data.special_tokens import SpecialTokens, padded_vocabulary_size
from cram.data.text.hub_source import HubSource
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.errors import CramError
from cram.files.atomic import sha256_bytes, to_json
from cram.files.limits import report_disk_errors
from cram.files.sealed import read_sealed, write_sealed
from cram.machine.host import peak_host_memory, release_memory
from cram.terminal.progress import Progress

HELD_OUT_INDEX = "held_out_ids.safetensors"
JOURNAL = "journal"  # what the stages keep so that they can be continued; removed when the shards are complete


def prepare_shards(
    data: DataConfig, tokenizer: TokenizerSource | None = None, progress: Progress | None = None
) -> ShardSet:
    """Return the shards of a text source, and make them first if they do not exist yet.

    The folder's name in `data.dir` ends in a hash of the source's content and of every setting that changes the
    shards, so another source or another setting gives another folder. The folder appears when it is complete. If
    several processes ask for the same shards, one makes them and the others wait.

    Args:
        data: the source, how it is cleaned and packed, and the folder that holds the shard folders.
        tokenizer: the tokenizer to load, or how to train one; by default WordPiece is trained on the source.
        progress: shows how far each stage is; by default on the terminal.

    Returns:
        The shard folder, open for reading.

    Raises:
        CramError: the source, a setting or the tokenizer is at fault, or the disk is full.
    """
    tokenizer = tokenizer or TokenizerSource()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # without it the library may encode on one core
    source = open_source(data.source, data.text_field, data.document, data.on_error, data.encoding)
    content = describe_content(source, data, tokenizer)
    folder = find_folder(source, data, content)
    if not folder.is_dir():
        with report_disk_errors(folder.parent, "data.dir"), lock_folder(folder):
            if not folder.is_dir():  # another process may have made it while this one waited for the lock
                _Preparation(source, data, tokenizer, content, folder, progress or Progress()).run()
    shutil.rmtree(folder / JOURNAL, ignore_errors=True)
    shards = ShardSet.open(folder)
    if data.on_error == "stop" and (broken := shards.manifest["dropped"].get("broken")):
        raise CramError(
            f"{folder}: prepared with {broken['documents']} broken record(s) or file(s) left out\n"
            f"repair data.source={data.source!r}, or accept it with data.on_error=skip."
        )
    return shards


class _Preparation:
    """The stages of one preparation; `run` does them in order."""

    def __init__(
        self,
        source: Source,
        data: DataConfig,
        tokenizer: TokenizerSource,
        content: dict[str, Any],
        folder: Path,
        progress: Progress,
    ) -> None:
        self._source = source
        self._data = data
        self._tokenizer = tokenizer
        self._content = content
        self._final_folder = folder
        self._folder = folder.with_name(f".{folder.name}.partial")
        self._journal = self._folder / JOURNAL
        self._progress = progress
        self._wall_seconds: dict[str, float] = {}
        self._split = WordSplitter(None)
        self._rates: list[GroupRate] = []
        size = sum(part.size for part in source.parts)
        self._engine = choose_engine(data, size, folder)

    def run(self) -> None:
        """Do the stages that are not done yet, and give the folder its final name.

        Raises:
            CramError: no document is left to train on, the source, the tokenizer or the cluster is at fault, or the
                disk is full.
        """
        with self._engine:  # entered first, because a cluster at fault must leave nothing behind
            self._do_stages()
        self._folder.rename(self._final_folder)

    def _do_stages(self) -> None:
        if self._journal.is_dir():
            print(f"continuing the preparation of {self._final_folder}", flush=True)
        else:
            estimate = tell_estimate(self._source, self._data, self._tokenizer, self._engine.processes)
            self._journal.mkdir(parents=True)
            if estimate:
                write_sealed(self._journal / ESTIMATE, estimate)
        with self._timed("tokenizer"):
            vocabulary = self._make_vocabulary()
        with self._timed("scan"):
            segments = self._scan_documents(vocabulary)
        with self._timed("duplicates"):
            decision = decide_fates(segments, self._data, self._journal, self._progress)
        with self._timed("pack"):
            scanned = segments.totals()
            held_out = self._index_held_out(vocabulary, scanned)
            writer, rows = self._pack_documents(vocabulary, segments, decision)
            self._check_documents_left(rows, decision)
            self._write_boilerplate(writer, rows, held_out)
        self._write_manifest(vocabulary, segments, decision, scanned, rows, writer)
        with self._timed("pack"):
            self._check_held_out(held_out)
        with self._timed("orders"):
            write_orders(ShardSet.open(self._folder))
        self._write_timing(scanned.seconds, rows.counts.seconds)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        yield
        release_memory()  # otherwise 200 MB of the vocabulary's training would add to the peak of the second pass
        self._wall_seconds[stage] = self._wall_seconds.get(stage, 0.0) + perf_counter() - start

    def _make_vocabulary(self) -> Vocabulary:
        """Load or train the tokenizer."""
        source, data = self._source, self._data
        try:
            vocabulary = make_vocabulary(source, data, self._tokenizer, self._journal, self._progress, self._engine)
            self._split = WordSplitter(serialize_normalizer(Tokenizer.from_str(vocabulary.definition).normalizer))
            self._rates = measure_groups(source, data, vocabulary.definition, self._split, self._journal)
            return vocabulary
        except CramError:
            shutil.rmtree(self._folder)  # after a failed first stage there is nothing to continue from
            raise

    def _scan_documents(self, vocabulary: Vocabulary) -> Segments:
        """The first pass: every document, or as many as the token limit needs, is judged and signed."""
        segments = Segments(self._journal)
        size = bytes_to_scan(self._source, self._data.tokens, self._rates, vocabulary.bytes_per_token)
        limit = None if size is None else int(size * MARGIN)
        source = self._source.balanced([rate.read for rate in self._rates])
        scanner = Scanner(self._data, self._split)
        scanner.load_benchmarks()
        segments.scan(source, limit, scanner, self._engine, self._progress)
        if not sum(segments.taken):
            raise self._nothing_left(0, 0)
        return segments

    def _index_held_out(self, vocabulary: Vocabulary, scanned: ScanResult) -> HeldOutIndex:
        """The token ids of the stored held-out texts, in a file that all processes map."""
        path = self._journal / HELD_OUT_INDEX
        index = read_if_intact(path, HeldOutIndex.load)
        if index is None:
            index_held_out(scanned.held_out.stored().values(), vocabulary.definition).save(path)
            index = HeldOutIndex.load(path)
        return index

    def _pack_documents(
        self, vocabulary: Vocabulary, segments: Segments, decision: Decision
    ) -> tuple[ShardWriter, RowWriter]:
        """The second pass: the kept documents become tokens, rows and shards."""
        data, definition = self._data, vocabulary.definition
        tokenizer = Tokenizer.from_str(definition)
        pad = SpecialTokens.of(tokenizer).pad
        writer = ShardWriter(self._folder, data.seq_len, padded_vocabulary_size(tokenizer), pad, self._engine.call)
        kept = decision.fates == Fate.KEPT
        shares, limit = self._share_tokens(segments, kept)
        packer = make_packer(data.packing, data.seq_len, pad)
        rows = RowWriter(self._journal, writer, packer, data.seq_len, shares, limit)
        with_excerpt = {number for pair in decision.pairs for number in pair[:2]}
        documents = KeptDocumentReader(self._source.parts, kept, segments.taken, with_excerpt, rows.cursor)
        tokenize = DocumentTokenizer(
            definition, data.filters, (self._journal / HELD_OUT_INDEX).absolute(), data.word_table
        )
        if tokenize.is_slow:
            print(SLOW_TOKENIZER, flush=True)
        total, packed_before = segments.kept_bytes(kept, rows.cursor)
        with (
            self._progress.stage("tokenizing and packing", total, "bytes") as stage,
            self._engine.start(tokenize) as workers,
        ):
            stage.advance(packed_before)
            for note, tokenized in workers.map(documents):
                rows.add(tokenized, note)
                stage.advance(note.progress)
            rows.counts.excerpts |= documents.excerpts
            rows.finish()
        if data.tokens and rows.counts.tokens < data.tokens == limit and not segments.exhausted:
            print(
                f"data.tokens={data.tokens}: only {rows.counts.tokens} are left of the text that was read for them, "
                "more of it was dropped than the first sample suggested; ask for more, or look at show=FOLDER",
                flush=True,
            )
        return writer, rows

    def _share_tokens(self, segments: Segments, kept: npt.NDArray[np.bool_]) -> tuple[list[float], int | None]:
        try:
            return share_tokens(self._source, segments, kept, self._data.tokens, self._rates)
        except CramError:
            shutil.rmtree(self._folder)
            raise

    def _check_documents_left(self, rows: RowWriter, decision: Decision) -> None:
        if not rows.counts.documents:
            documents = int((~np.isin(decision.fates, (Fate.EMPTY, Fate.BROKEN))).sum())
            raise self._nothing_left(documents, int((decision.fates == Fate.HELD_OUT).sum()))

    def _nothing_left(self, documents: int, held_out: int) -> CramError:
        """Make the error to raise, and remove the folder, because there is nothing to continue from."""
        shutil.rmtree(self._folder)
        return nothing_left(self._data, documents, held_out)

    def _write_boilerplate(self, writer: ShardWriter, rows: RowWriter, held_out: HeldOutIndex) -> None:
        """Write which windows of held-out text may stand in the rows because many documents contain them."""
        writer.write_file(BOILERPLATE_FILE, save({"windows": held_out.windows[rows.boilerplate]}))

    def _write_manifest(
        self,
        vocabulary: Vocabulary,
        segments: Segments,
        decision: Decision,
        scanned: ScanResult,
        rows: RowWriter,
        writer: ShardWriter,
    ) -> None:
        """Write the statistics, the tokenizer, the held-out documents and the manifest."""
        documents = summarize_documents(self._source, segments, decision, scanned, rows, self._data)
        samples = collect_samples(decision, scanned, rows.counts)
        writer.write_file(STATISTICS, to_json(samples, indent=1).encode())
        definition = vocabulary.definition.encode()
        tokenizer = {
            "sha256": sha256_bytes(definition),
            "trained_here": self._tokenizer.path is None,
            "lost_characters": vocabulary.lost,
            "unknown_tokens": self._unknown_share(vocabulary, writer),
        }
        # A local source is not named in the manifest: the same files elsewhere give the same bytes.
        source = {"source": self._data.source} if isinstance(self._source, HubSource) else {}
        texts = [HeldOutDocument(text, text_hash) for text_hash, text in scanned.held_out.stored().items()]
        writer.finish(definition, texts, self._content | source | {"tokenizer": tokenizer} | documents, rows.lengths)
        counts = documents["counts"]
        if warning := describe_shortage(counts["held_out_documents"], counts["held_out_bytes"]):
            print(f"warning: {warning}", flush=True)

    def _unknown_share(self, vocabulary: Vocabulary, writer: ShardWriter) -> float:
        """The share of the tokens in the rows that are the unknown token."""
        special = SpecialTokens.of(Tokenizer.from_str(vocabulary.definition))
        counts, _ = writer.state()
        tokens = int(np.delete(counts, special.pad).sum())
        return 0.0 if special.unk is None else int(counts[special.unk]) / max(1, tokens)

    def _check_held_out(self, held_out: HeldOutIndex) -> None:
        """Search the finished rows for held-out text and add the result to the manifest."""
        shards = ShardSet.open(self._folder)
        check = {"held_out_check": asdict(check_rows(shards, held_out))}
        write_sealed(self._folder / MANIFEST, shards.manifest | check)

    def _write_timing(self, scan_seconds: dict[str, float], pack_seconds: dict[str, float]) -> None:
        """Write `timing.json`, which reports show. It differs between runs, so no reader of the shards uses it."""
        timing = {
            "processes": self._engine.processes,
            "wall_seconds": self._wall_seconds,
            "peak_bytes": peak_host_memory(),
            "scan_seconds": scan_seconds,
            "pack_seconds": pack_seconds,
        }
        if estimate := read_if_intact(self._journal / ESTIMATE, read_sealed):
            timing["estimate"] = estimate
        write_sealed(self._folder / TIMING, timing)
