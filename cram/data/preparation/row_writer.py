"""Tokenized documents become packed rows in shards; after every shard a state from which another process can go on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cram.data.preparation.held_out_search import BOILERPLATE
from cram.data.preparation.scan import Sample, Samples, add_samples
from cram.data.preparation.second_pass import ChunkNote, Overlap, TokenizedDocuments
from cram.data.preparation.stopwatch import Stopwatch, add_seconds
from cram.data.shards.mapped_arrays import map_sealed_arrays, read_kept, write_sealed_arrays
from cram.data.shards.pack import Packer
from cram.data.shards.shards import ShardWriter
from cram.data.text.document import Location
from cram.files.atomic import to_json

TOKENS_PER_SHARD = 1 << 24  # ten seconds of work for two cores
FILE_BYTES = 1_000_000  # input files with less text share rows, so that a folder of letters is not mostly padding
LONGEST = 1 << 16  # tokens: longer documents share the last place of the histogram of lengths
STATE = "rows.safetensors"


@dataclass
class Counts:
    """What the second pass came to."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    not_needed: int = 0  # documents behind the token limit
    dropped: dict[str, list[int]] = field(default_factory=dict)  # reason -> documents, bytes
    samples: Samples = field(default_factory=dict)
    excerpts: dict[int, Sample] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, encoded: TokenizedDocuments, excerpts: dict[int, Sample]) -> None:
        """Take in drops, samples and excerpts of a chunk."""
        for reason, sizes in encoded.dropped.items():
            self.drop(reason, sizes)
        add_samples(self.samples, encoded.samples)
        self.excerpts |= excerpts
        add_seconds(self.seconds, encoded.seconds)

    def drop(self, reason: str, sizes: list[int], *samples: Sample) -> None:
        """Count documents of these bytes as dropped."""
        documents, total = self.dropped.get(reason, [0, 0])
        self.dropped[reason] = [documents + len(sizes), total + sum(sizes)]
        add_samples(self.samples, {reason: list(samples)} if samples else {})

    @classmethod
    def from_json(cls, text: str) -> "Counts":
        """The counts that `to_json(asdict(counts))` wrote."""
        found = json.loads(text)
        found["samples"] = {name: [Sample(**one) for one in some] for name, some in found["samples"].items()}
        found["excerpts"] = {int(number): Sample(**one) for number, one in found["excerpts"].items()}
        return cls(**found)


class RowWriter:
    """Packs encoded documents and writes a shard when enough rows are there.

    Args:
        shares: for each part the share of the kept documents' bytes in it and the parts before it.
        limit: tokens; a part takes no more documents when its share of them is reached. None: no limit.
    """

    def __init__(
        self, folder: Path, writer: ShardWriter, packer: Packer, seq_len: int, shares: list[float], limit: int | None
    ):
        self._path = folder / STATE
        self._writer = writer
        self._packer = packer
        self._seq_len = seq_len
        self._shares = shares
        self._limit = limit
        self._part = 0
        self._file_bytes = 0  # in rows since the last input file that ended with a padded row
        self.cursor = Location(0, -1)  # of the last document
        self.counts = Counts()
        self.lengths = np.zeros(LONGEST + 1, np.int64)  # documents by their number of tokens
        self._seen: dict[int, int] = {}  # documents that have held a window of the held-out ones, by its number
        self._load()

    def add(self, encoded: TokenizedDocuments, note: ChunkNote) -> None:
        """Take a chunk of documents; CramError when the disk is full."""
        stopwatch = Stopwatch()
        ends = np.cumsum(encoded.lengths)
        documents = zip(note.parts, ends, encoded.lengths, encoded.bytes, strict=True)
        for number, (part, end, length, size) in enumerate(documents):
            if length:
                self._document(part, encoded.ids[end - length : end], int(size), encoded.touching.get(number))
        self.cursor = note.cursor
        self.counts.add(encoded, note.excerpts)
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
        """Write what is left, the last row padded."""
        stopwatch = Stopwatch()
        self._writer.write(*self._packer.finish())
        stopwatch.lap("packing")
        self._writer.flush()
        stopwatch.lap("writing")
        add_seconds(self.counts.seconds, stopwatch.seconds)

    @property
    def fill(self) -> float:
        """Share of the rows' positions that hold tokens of documents."""
        return self.counts.tokens / max(1, self._writer.rows * self._seq_len)

    @property
    def cut(self) -> int:
        """Documents that would have fitted in one row and are in two."""
        return self._packer.cut

    @property
    def boilerplate(self) -> list[int]:
        """The numbers of the held-out windows that are in rows, because many documents hold them; ascending."""
        return sorted(window for window, documents in self._seen.items() if documents > BOILERPLATE)

    def _document(self, part: int, ids: npt.NDArray[np.int32], size: int, touching: Overlap | None) -> None:
        if part != self._part and self._file_bytes >= FILE_BYTES:
            self._writer.write(*self._packer.finish())
            self._file_bytes = 0
        self._part = part
        if self._limit is not None and self.counts.tokens >= self._limit * self._shares[part]:
            self.counts.not_needed += 1
            return
        if touching and self._leaks(touching):
            self.counts.drop("window_held_out", [touching.bytes], touching.sample)
            return
        self._packer.add(ids)
        self._file_bytes += size
        self.lengths[min(len(ids), LONGEST)] += 1
        self.counts.documents += 1
        self.counts.bytes += size
        self.counts.tokens += len(ids)

    def _leaks(self, touching: Overlap) -> bool:
        """Whether a document holds a window that few before it have held; it counts as one of these."""
        leaks = any(self._seen.get(window, 0) < BOILERPLATE for window in touching.windows)
        for window in touching.windows:
            self._seen[window] = self._seen.get(window, 0) + 1
        return leaks

    def _save(self) -> None:
        token_counts, written = self._writer.state()
        pending = {f"pending.{name}": array for name, array in self._packer.state().items()}
        seen = np.array(sorted(self._seen.items()), np.int64).reshape(-1, 2)
        here = {"part": self._part, "file_bytes": self._file_bytes, "cursor": self.cursor}
        metadata = {"counts": to_json(asdict(self.counts)), "written": to_json(written), "here": to_json(here)}
        arrays: dict[str, np.ndarray] = {
            "token_counts": token_counts,
            "lengths": self.lengths,
            "seen": seen,
            **pending,
        }
        write_sealed_arrays(self._path, arrays, metadata)

    def _load(self) -> None:
        """Go on behind the last shard, or start anew when its files are not what they were."""
        found = read_kept(self._path, map_sealed_arrays)
        if found is None:
            return
        try:
            mapped, metadata = found
            arrays = {name: np.array(array) for name, array in mapped.items()}
            self._writer.load(arrays["token_counts"], json.loads(metadata["written"]))
        except ValueError:
            return
        self._packer.load({name[8:]: array for name, array in arrays.items() if name.startswith("pending.")})
        here = json.loads(metadata["here"])
        self._part, self._file_bytes = here["part"], here["file_bytes"]
        self.cursor = Location(*here["cursor"])
        self.lengths = arrays["lengths"]
        self._seen = dict(arrays["seen"].tolist())
        self.counts = Counts.from_json(metadata["counts"])
