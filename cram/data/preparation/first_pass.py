"""The first pass over a source. Its results are kept in segments, so a killed pass continues after the last one.

scan-00000.safetensors   the arrays of the segment's documents, see `Scanner`
scan-00000.json          samples, texts that may be held out, counts, and how far the pass had come after the segment
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.held_out_split import HeldOutTexts
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.engine import Engine
from cram.data.preparation.samples import Sample
from cram.data.preparation.scan import Arrays, Scanner, ScanResult
from cram.data.shards.mapped_arrays import map_sealed_arrays, read_if_intact, write_sealed_arrays
from cram.data.text.document import LocatedDocument, Location
from cram.data.text.reading_plan import ReadingPlan, ReadingState
from cram.data.text.source import Source, SourcePart
from cram.files.sealed import read_sealed, write_sealed
from cram.terminal.progress import Progress

SEGMENT_BYTES = 128_000_000  # text
SEGMENT_DOCUMENTS = 100_000  # a signature takes half a kilobyte


class Segments:
    """The segments in a folder. `scan` adds those that are missing; the other members read what there is.

    Args:
        folder: where the files are. Segments after a missing or damaged one are not used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes: list[dict[str, Any]] = []  # the content of the JSON files
        self._maps: list[Arrays] = []
        while (note := read_if_intact(self._path(len(self._notes), "json"), read_sealed)) and self._map_next():
            self._notes.append(note)

    @property
    def complete(self) -> bool:
        """Whether the pass has reached its end."""
        return bool(self._notes) and bool(self._notes[-1]["complete"])

    @property
    def taken(self) -> list[int]:
        """How many documents of each part were scanned, from its first one on."""
        taken: list[int] = self._notes[-1]["standing"]["taken"]
        return taken

    @property
    def exhausted(self) -> bool:
        """Whether every part was read to its end."""
        return all(self._notes[-1]["standing"]["exhausted"])

    def shares(self, kept: npt.NDArray[np.bool_]) -> list[float]:
        """Compute for each part the share of the kept text that is in it and in the parts before it.

        Args:
            kept: bool [documents], by document number.
        """
        part_bytes = np.bincount(self.joined("part"), self.joined("bytes") * kept, len(self.taken)).cumsum()
        shares: list[float] = (part_bytes / max(1, part_bytes[-1])).tolist()
        return shares

    def kept_bytes(self, kept: npt.NDArray[np.bool_], cursor: Location) -> tuple[int, int]:
        """Return the bytes of the kept documents' text, and how many of them lie up to a location.

        Args:
            kept: bool [documents], by document number.
            cursor: the location; its own document counts.
        """
        sizes, part = self.joined("bytes") * kept, self.joined("part")
        is_before = (part < cursor.part) | ((part == cursor.part) & (self.joined("record") <= cursor.record))
        return int(sizes.sum()), int((sizes * is_before).sum())

    def scan(self, source: Source, limit: int | None, scanner: Scanner, engine: Engine, progress: Progress) -> None:
        """Scan the documents that are in no segment yet.

        Args:
            source: what is scanned.
            limit: bytes of text after which the pass ends; None scans everything.
            scanner: scans chunks of documents.
            engine: where it is done.
            progress: shows how far the pass is.
        """
        if self.complete:
            return
        standing = self._notes[-1]["standing"] if self._notes else {}
        plan = ReadingPlan(source, limit, ReadingState(**standing) if standing else None)
        chunks = _Chunks(plan, source.parts, limit)
        segment, segment_start = ScanResult(), standing
        with progress.stage("scanning", chunks.total, "bytes") as stage, engine.start(scanner) as workers:
            for (standing, advance), result in workers.map(chunks):
                segment.add(result)
                if _is_full(segment_start, standing):
                    self._write(segment, standing, complete=False)
                    segment, segment_start = ScanResult(), standing
                stage.advance(advance)
        self._write(segment, plan.state.to_json(), complete=True)

    def totals(self) -> ScanResult:
        """Return samples, texts that may be held out, counts and seconds of all segments, but no arrays."""
        totals = ScanResult()
        for note in self._notes:
            samples = {reason: [Sample(**fields) for fields in samples] for reason, samples in note["samples"].items()}
            totals.add(
                ScanResult(
                    samples=samples,
                    held_out=HeldOutTexts(_texts_by_hash(note["held_out"]), _texts_by_hash(note["lowest"])),
                    cut_documents=note["cut_documents"],
                    cut_bytes=note["cut_bytes"],
                    fixed_documents=note["fixed_documents"],
                    fixed_characters=note["fixed_characters"],
                    seconds=note["seconds"],
                )
            )
        return totals

    def maps(self, name: str) -> list[np.ndarray[Any, Any]] | None:
        """Return one array of every segment, as memory maps in scan order; None if it was not computed."""
        maps = [arrays[name] for arrays in self._arrays if name in arrays]
        return maps if len(maps) == len(self._arrays) else None

    def joined(self, name: str) -> np.ndarray[Any, Any]:
        """Return one array of all documents, by document number, in memory."""
        return np.concatenate([arrays[name] for arrays in self._arrays])[self.order]

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """The scan index of each document, by document number: int64 [documents]."""
        part, record = (np.concatenate([arrays[name] for arrays in self._arrays]) for name in ("part", "record"))
        return np.lexsort((record, part))

    @property
    def _arrays(self) -> list[Arrays]:
        return [arrays for arrays in self._maps if arrays]  # the last segment may have no documents

    def _map_next(self) -> bool:
        """Map the arrays of the segment after the last one; False if they are missing or damaged."""
        mapped = read_if_intact(self._path(len(self._notes), "safetensors"), map_sealed_arrays)
        if mapped:
            self._maps.append(mapped[0])
        return bool(mapped)

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"scan-{number:05}.{ending}"

    def _write(self, segment: ScanResult, standing: dict[str, Any], complete: bool) -> None:
        arrays = {name: np.concatenate(parts) for name, parts in segment.arrays.items()}
        number = len(self._notes)
        write_sealed_arrays(self._path(number, "safetensors"), arrays)
        note = {
            "standing": standing,
            "complete": complete,
            "samples": {reason: [asdict(sample) for sample in samples] for reason, samples in segment.samples.items()},
            "held_out": segment.held_out.below,
            "lowest": segment.held_out.lowest,
            "cut_documents": segment.cut_documents,
            "cut_bytes": segment.cut_bytes,
            "fixed_documents": segment.fixed_documents,
            "fixed_characters": segment.fixed_characters,
            "seconds": segment.seconds,
        }
        write_sealed(self._path(number, "json"), note)
        self._map_next()
        self._notes.append(read_sealed(self._path(number, "json")))


class _Chunks:
    """Chunks of a plan's documents, each with the plan's state after it and how far the progress bar moves.

    Attributes:
        total: the length of the progress bar in bytes; None if it is not known, then the bytes of text are shown.
    """

    def __init__(self, plan: ReadingPlan, parts: list[SourcePart], limit: int | None) -> None:
        self._plan = plan
        self._limit = limit
        self._disk_bytes = sum(part.size for part in parts)
        self.total = min(limit or self._disk_bytes, self._disk_bytes or limit or 0) or None

    def __iter__(self) -> Iterator[tuple[list[LocatedDocument], tuple[dict[str, Any], int]]]:
        shown = 0
        for chunk in split_into_chunks((located.document.text, located) for located in self._plan):
            position = int(self._share_read() * self.total) if self.total else self._plan.state.bytes
            yield chunk, (self._plan.state.to_json(), max(0, position - shown))
            shown = max(position, shown)

    def _share_read(self) -> float:
        """How much of the pass is done. It ends at the limit or at the end of the source, whichever comes first."""
        of_source = sum(self._plan.positions) / self._disk_bytes if self._disk_bytes else 0.0
        of_limit = self._plan.state.bytes / self._limit if self._limit else 0.0
        return min(1.0, max(of_source, of_limit))


def _texts_by_hash(texts: dict[str, str]) -> dict[int, str]:
    """Turn the keys, which JSON makes strings, into numbers again."""
    return {int(text_hash): text for text_hash, text in texts.items()}


def _is_full(start: dict[str, Any], standing: dict[str, Any]) -> bool:
    """Whether a segment that began at `start` has enough documents or bytes."""
    documents: int = sum(standing["taken"]) - sum(start.get("taken", []))
    size: int = standing["bytes"] - start.get("bytes", 0)
    return documents >= SEGMENT_DOCUMENTS or size >= SEGMENT_BYTES
