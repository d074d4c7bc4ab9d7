"""The first pass over a source, kept in segment files, so that a killed one goes on behind its last segment.

scan-00000.safetensors   the entries of its documents, see `Scanner`
scan-00000.json          drop samples, texts that may be held out, and where the pass stands after it
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.held_out_split import HeldOutTexts
from cram.data.preparation.scan import Sample, Scanned, Scanner, chunks
from cram.data.preparation.workers import Workers
from cram.data.shards.mapped_arrays import map_sealed_arrays, read_kept, write_sealed_arrays
from cram.data.text.document import LocatedDocument, Location
from cram.data.text.reading_plan import ReadingPlan, ReadingState
from cram.data.text.source import Source, SourcePart
from cram.files.sealed import read_sealed, write_sealed
from cram.terminal.progress import Progress

SEGMENT_BYTES = 128_000_000  # text
SEGMENT_DOCUMENTS = 100_000  # a signature takes half a kilobyte


class Segments:
    """The segment files of a folder; `scan` adds those that are missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes: list[dict[str, Any]] = []
        self._maps: list[dict[str, np.ndarray]] = []
        while (note := read_kept(self._path(len(self._notes), "json"), read_sealed)) and self._map():
            self._notes.append(note)

    @property
    def complete(self) -> bool:
        """Whether the pass has reached its end."""
        return bool(self._notes) and self._notes[-1]["complete"]

    @property
    def taken(self) -> list[int]:
        """How many documents of each part were scanned, from its first on."""
        taken: list[int] = self._notes[-1]["standing"]["taken"]
        return taken

    @property
    def exhausted(self) -> bool:
        """Whether every part was read to its end."""
        return all(self._notes[-1]["standing"]["exhausted"])

    def shares(self, kept: npt.NDArray[np.bool_]) -> list[float]:
        """For each part the share of the kept text that is in it and the parts before; `kept`: bool [documents]."""
        bytes = np.bincount(self.joined("part"), self.joined("bytes") * kept, len(self.taken)).cumsum()
        return (bytes / max(1, bytes[-1])).tolist()

    def kept_bytes(self, kept: npt.NDArray[np.bool_], cursor: Location) -> tuple[int, int]:
        """Bytes of the kept documents' text, and how many of them lie up to a location."""
        bytes, part = self.joined("bytes") * kept, self.joined("part")
        before = (part < cursor.part) | ((part == cursor.part) & (self.joined("record") <= cursor.record))
        return int(bytes.sum()), int((bytes * before).sum())

    def scan(self, source: Source, limit: int | None, scanner: Scanner, processes: int, report: Progress) -> None:
        """Scan what no segment holds yet, until the text reaches `limit` bytes."""
        if self.complete:
            return
        standing = self._notes[-1]["standing"] if self._notes else {}
        plan = ReadingPlan(source, limit, ReadingState(**standing) if standing else None)
        pieces = _Pieces(plan, source.parts, limit)
        begun = standing
        segment = Scanned()
        with report.stage("scanning", pieces.total, "bytes") as stage, Workers(scanner, processes) as workers:
            for (standing, progress), found in workers.map(pieces):
                segment.add(found)
                if _full(begun, standing):
                    self._write(segment, standing, complete=False)
                    segment, begun = Scanned(), standing
                stage.advance(progress)
        self._write(segment, plan.state.to_json(), complete=True)

    def found(self) -> Scanned:
        """Samples, texts that may be held out, counts and seconds of all segments; no entries."""
        total = Scanned()
        for note in self._notes:
            total.add(
                Scanned(
                    samples={name: [Sample(**one) for one in some] for name, some in note["samples"].items()},
                    held_out=HeldOutTexts(_by_hash(note["held_out"]), _by_hash(note["lowest"])),
                    cut_documents=note["cut_documents"],
                    cut_bytes=note["cut_bytes"],
                    seconds=note["seconds"],
                )
            )
        return total

    def maps(self, name: str) -> list[np.ndarray] | None:
        """One array of every segment, as memory maps in the order of scanning; None where it was not made."""
        found = [arrays.get(name) for arrays in self._arrays]
        return None if any(array is None for array in found) else found  # type: ignore[return-value]

    def joined(self, name: str) -> np.ndarray:
        """One array of all documents in the order of (part, record), in memory."""
        return np.concatenate([arrays[name] for arrays in self._arrays])[self.order]

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """The numbers that the scanned documents have in the order of (part, record), int64 [documents]."""
        part, record = (np.concatenate([arrays[name] for arrays in self._arrays]) for name in ("part", "record"))
        return np.lexsort((record, part))

    @property
    def _arrays(self) -> list[dict[str, np.ndarray]]:
        return [arrays for arrays in self._maps if arrays]  # the last segment may hold no documents

    def _map(self) -> bool:
        """Map the arrays of the segment behind the last one; False where they are missing or damaged."""
        found = read_kept(self._path(len(self._notes), "safetensors"), map_sealed_arrays)
        if found:
            self._maps.append(found[0])
        return bool(found)

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"scan-{number:05}.{ending}"

    def _write(self, segment: Scanned, standing: dict[str, Any], complete: bool) -> None:
        arrays = {name: np.concatenate(parts) for name, parts in segment.arrays.items()}
        number = len(self._notes)
        write_sealed_arrays(self._path(number, "safetensors"), arrays)
        samples = {name: [asdict(one) for one in some] for name, some in segment.samples.items()}
        note = {"standing": standing, "complete": complete, "samples": samples}
        note |= {"held_out": segment.held_out.below, "lowest": segment.held_out.lowest}
        note |= {name: getattr(segment, name) for name in ("cut_documents", "cut_bytes", "seconds")}
        write_sealed(self._path(number, "json"), note)
        self._map()
        self._notes.append(read_sealed(self._path(number, "json")))


class _Pieces:
    """Chunks of documents, each with where the pass stands after it and by how much the progress bar moves."""

    def __init__(self, plan: ReadingPlan, parts: list[SourcePart], limit: int | None) -> None:
        self._plan = plan
        self._limit = limit
        self._disk = sum(part.size for part in parts)
        self.total = min(limit or self._disk, self._disk or limit or 0) or None

    def __iter__(self) -> Iterator[tuple[list[LocatedDocument], tuple[dict[str, Any], int]]]:
        shown = 0
        for chunk in chunks((read.document.text, read) for read in self._plan):
            now = int(self._share() * (self.total or 0))
            yield chunk, (self._plan.state.to_json(), max(0, now - shown))
            shown = max(now, shown)

    def _share(self) -> float:
        """How much of the pass is done: it ends at the limit, or where the source does, whichever comes first."""
        read = sum(self._plan.positions) / self._disk if self._disk else 0.0
        return min(1.0, max(read, self._plan.state.bytes / self._limit if self._limit else 0.0))


def _by_hash(texts: dict[str, str]) -> dict[int, str]:
    return {int(number): text for number, text in texts.items()}


def _full(begun: dict[str, Any], standing: dict[str, Any]) -> bool:
    """Whether a segment that began at one standing is to end at another."""
    documents = sum(standing["taken"]) - sum(begun.get("taken", []))
    return documents >= SEGMENT_DOCUMENTS or standing["bytes"] - begun.get("bytes", 0) >= SEGMENT_BYTES
