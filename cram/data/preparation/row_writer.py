"""Packs tokenized documents into rows and writes them as shards.

After every shard the state is saved, so that another process can continue after it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cram.data.preparation.fates import Fate
from cram.data.preparation.held_out_search import BOILERPLATE
from cram.data.preparation.samples import Sample, Samples, add_samples
from cram.data.preparation.second_pass import ChunkNote, Overlap, TokenizedDocuments
from cram.data.preparation.stopwatch import Stopwatch, add_seconds
from cram.data.shards.mapped_arrays import map_sealed_arrays, read_if_intact, write_sealed_arrays
from cram.data.shards.pack import Packer
from cram.data.shards.shards import ShardWriter
from cram.data.text.document import Location
from cram.files.atomic import to_json

TOKENS_PER_SHARD = 1 << 24  # ten seconds of work for two cores
# Parts with less text share rows with the next part, so that a folder of small files does not become mostly padding.
PART_BYTES = 1_000_000
LONGEST = 1 << 16  # tokens; longer documents are counted as this long
STATE = "rows.safetensors"


@dataclass
class Counts:
    """The totals of the second pass.

    Attributes:
        documents, bytes, tokens: of the documents in the rows.
        not_needed: documents after the token limit.
        part_tokens: the tokens by part of the source.
        dropped: documents and bytes by the reason they were dropped for in this pass.
        samples: of the documents dropped in this pass, by reason.
        excerpts: of the documents in pairs of duplicates, by document number.
        seconds: by activity, of all processes.
    """

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    not_needed: int = 0
    part_tokens: dict[int, int] = field(default_factory=dict)
    dropped: dict[str, list[int]] = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    excerpts: dict[int, Sample] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, chunk: TokenizedDocuments, excerpts: dict[int, Sample]) -> None:
        """Add the dropped documents, samples, excerpts and seconds of a chunk."""
        for reason, sizes in chunk.dropped.items():
            self.drop(reason, sizes)
        add_samples(self.samples, chunk.samples)
        self.excerpts |= excerpts
        add_seconds(self.seconds, chunk.seconds)

    def drop(self, reason: str, sizes: list[int], *samples: Sample) -> None:
        """Count documents of these bytes as dropped, and take samples of them."""
        documents, total = self.dropped.get(reason, [0, 0])
        self.dropped[reason] = [documents + len(sizes), total + sum(sizes)]
        add_samples(self.samples, {reason: list(samples)} if samples else {})

    @classmethod
    def from_json(cls, text: str) -> "Counts":
        """Read what `to_json(asdict(counts))` wrote."""
        fields = json.loads(text)
        fields["samples"] = {name: [Sample(**one) for one in named] for name, named in fields["samples"].items()}
        fields["part_tokens"] = {int(part): tokens for part, tokens in fields["part_tokens"].items()}
        fields["excerpts"] = {int(number): Sample(**one) for number, one in fields["excerpts"].items()}
        return cls(**fields)


class RowWriter:
    """Packs tokenized documents and writes a shard whenever it has enough rows.

    If the folder holds a state of an earlier process, the writer continues from it; `cursor` says where.

    Args:
        folder: where the state is kept.
        writer: writes the shards.
        packer: packs the documents.
        seq_len: tokens of a row.
        shares: for each part, the share of the limit that it and the parts before it have.
        limit: tokens; a part takes no more documents when its share of the limit is reached. None means no limit.

    Attributes:
        cursor: the location of the last document that was added.
        counts: totals so far.
        lengths: int64, how many documents have each number of tokens.
    """

    def __init__(
        self, folder: Path, writer: ShardWriter, packer: Packer, seq_len: int, shares: list[float], limit: int | None
    ) -> None:
        self._path = folder / STATE
        self._writer = writer
        self._packer = packer
        self._seq_len = seq_len
        self._shares = shares
        self._limit = limit
        self._part = 0
        self._part_bytes = 0  # bytes of text since the last part that ended with a padded row
        self.cursor = Location(0, -1)  # of the last document
        self.counts = Counts()
        self.lengths = np.zeros(LONGEST + 1, np.int64)  # documents by their number of tokens
        # How many documents contained each window of held-out text so far, by the index of the window.
        self._window_counts: dict[int, int] = {}
        self._load()

    def add(self, chunk: TokenizedDocuments, note: ChunkNote) -> None:
        """Add a chunk of documents.

        Raises:
            CramError: the disk is full.
        """
        stopwatch = Stopwatch()
        kept: list[int] = []  # documents of the current part, by index in the chunk
        documents = zip(note.parts, chunk.lengths.tolist(), chunk.bytes.tolist(), strict=True)
        for number, (part, length, size) in enumerate(documents):
            if not length:
                continue
            if part != self._part and self._part_bytes >= PART_BYTES:
                self._pack(chunk, kept)
                self._writer.write(*self._packer.finish())
                kept, self._part_bytes = [], 0
            self._part = part
            if self._accept(part, length, size, chunk.overlaps.get(number)):
                kept.append(number)
        self._pack(chunk, kept)
        self.cursor = note.cursor
        self.counts.add(chunk, note.excerpts)
        self._writer.write(*self._packer.take())
        stopwatch.lap("packing")
        full = self._writer.buffered * self._seq_len >= TOKENS_PER_SHARD
        if full:
            self._writer.flush()
            stopwatch.lap("writing")
        add_seconds(self.counts.seconds, stopwatch.seconds)
        if full:
            self._save()

    def finish(self) -> None:
        """Write the remaining rows; the last one is padded."""
        stopwatch = Stopwatch()
        self._writer.write(*self._packer.finish())
        stopwatch.lap("packing")
        self._writer.flush()
        stopwatch.lap("writing")
        add_seconds(self.counts.seconds, stopwatch.seconds)

    @property
    def fill(self) -> float:
        """The share of the positions in the rows that are not padding."""
        return self.counts.tokens / max(1, self._writer.rows * self._seq_len)

    @property
    def cut(self) -> int:
        """Documents that are in two rows although they would fit into one."""
        return self._packer.cut

    @property
    def boilerplate(self) -> list[int]:
        """The indices of the held-out windows that may be in rows because many documents contain them; ascending."""
        return sorted(window for window, documents in self._window_counts.items() if documents > BOILERPLATE)

    def _accept(self, part: int, length: int, size: int, overlap: Overlap | None) -> bool:
        """Count a document of so many tokens and bytes, and return whether it comes into the rows."""
        if self._limit is not None and self.counts.tokens >= self._limit * self._shares[part]:
            self.counts.not_needed += 1
            return False
        if overlap and self._leaks(overlap):
            self.counts.drop(Fate.WINDOW_HELD_OUT.reason, [overlap.bytes], overlap.sample)
            return False
        self._part_bytes += size
        self.counts.documents += 1
        self.counts.bytes += size
        self.counts.tokens += length
        self.counts.part_tokens[part] = self.counts.part_tokens.get(part, 0) + length
        return True

    def _pack(self, chunk: TokenizedDocuments, kept: list[int]) -> None:
        """Hand documents of a chunk to the packer, given by their indices, ascending."""
        if not kept:
            return
        is_kept = np.zeros(len(chunk.lengths), bool)
        is_kept[kept] = True
        lengths = chunk.lengths[is_kept]
        all_kept = lengths.sum() == len(chunk.ids)
        self._packer.extend(chunk.ids if all_kept else chunk.ids[np.repeat(is_kept, chunk.lengths)], lengths)
        self.lengths += np.bincount(np.minimum(lengths, LONGEST), minlength=len(self.lengths))

    def _leaks(self, overlap: Overlap) -> bool:
        """Whether a document contains a window that few earlier documents contain; counts its windows."""
        leaks = any(self._window_counts.get(window, 0) < BOILERPLATE for window in overlap.windows)
        for window in overlap.windows:
            self._window_counts[window] = self._window_counts.get(window, 0) + 1
        return leaks

    def _save(self) -> None:
        token_counts, written = self._writer.state()
        pending = {f"pending.{name}": array for name, array in self._packer.state().items()}
        window_counts = np.array(sorted(self._window_counts.items()), np.int64).reshape(-1, 2)
        position = {"part": self._part, "file_bytes": self._part_bytes, "cursor": self.cursor}
        metadata = {"counts": to_json(asdict(self.counts)), "written": to_json(written), "here": to_json(position)}
        arrays: dict[str, np.ndarray] = {
            "token_counts": token_counts,
            "lengths": self.lengths,
            "seen": window_counts,
            **pending,
        }
        write_sealed_arrays(self._path, arrays, metadata)

    def _load(self) -> None:
        """Continue after the last shard; start anew if there is no state or its shards are damaged."""
        stored = read_if_intact(self._path, map_sealed_arrays)
        if stored is None:
            return
        try:
            mapped, metadata = stored
            arrays = {name: np.array(array) for name, array in mapped.items()}
            self._writer.load(arrays["token_counts"], json.loads(metadata["written"]))
        except ValueError:
            return
        self._packer.load({name[8:]: array for name, array in arrays.items() if name.startswith("pending.")})
        position = json.loads(metadata["here"])
        self._part, self._part_bytes = position["part"], position["file_bytes"]
        self.cursor = Location(*position["cursor"])
        self.lengths = arrays["lengths"]
        self._window_counts = dict(arrays["seen"].tolist())
        self.counts = Counts.from_json(metadata["counts"])
