"""Which documents of a source are read, and in which order: the scan order.

A plan can stop after any document, and another process can go on with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from math import inf
from typing import Any

from cram.data.text.document import LocatedDocument, Location, byte_size
from cram.data.text.source import Source


@dataclass
class ReadingState:
    """How far a reading plan has come.

    Attributes:
        taken: how many documents of each part were read, from its first one on.
        exhausted: for each part, whether it was read to its end.
        bytes: bytes (UTF-8) of all documents read.
    """

    taken: list[int]
    exhausted: list[bool]
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a copy of the state that can be written as JSON; `ReadingState(**copy)` restores it."""
        return {"taken": list(self.taken), "exhausted": list(self.exhausted), "bytes": self.bytes}


class ReadingPlan:
    """Reads each part's share of the documents, until their bytes reach `limit` (all documents if None).

    A part's share of the limit is its share of the source's bytes on the disk; parts of unknown size count equally.
    The first round reads each part up to its share; a later part also reads what the parts before it lacked. If the
    first round does not reach the limit, a second round reads on in the parts that hold more.

    A plan that starts from the state of another plan continues after the last document that the other one gave. It
    does not open parts that have given their share, and reads a part that it continues from that part's start.

    Args:
        source: what is read, one part at a time.
        limit: bytes of text (UTF-8).
        state: where to start, copied; None starts at the beginning.

    Attributes:
        state: how far the plan has come, up to date after each document.
        positions: for each part, how many of its `size` bytes were read, for showing progress.
    """

    def __init__(self, source: Source, limit: int | None, state: ReadingState | None = None) -> None:
        self._parts = source.parts
        self._limit = inf if limit is None else limit
        count = len(self._parts)
        self.state = ReadingState(**state.to_json()) if state else ReadingState([0] * count, [False] * count)
        assert len(self.state.taken) == len(self.state.exhausted) == count
        self.positions = [
            part.size if exhausted else 0 for part, exhausted in zip(self._parts, self.state.exhausted, strict=True)
        ]

    def __iter__(self) -> Iterator[LocatedDocument]:
        """Yield the documents of the plan, each with its location."""
        for goals in (self._first_round_goals(), [self._limit] * len(self._parts)):
            for index, goal in enumerate(goals):
                yield from self._read_part(index, goal)

    def _first_round_goals(self) -> list[float]:
        """For each part, the bytes of text that it and the parts before it shall have given."""
        if self._limit == inf:
            return [inf] * len(self._parts)
        sizes = [part.size for part in self._parts]
        if not any(sizes):
            sizes = [1] * len(sizes)
        total = sum(sizes)
        return [self._limit * size // total for size in accumulate(sizes)]

    def _read_part(self, index: int, goal: float) -> Iterator[LocatedDocument]:
        # What is read depends only on the state and on the fixed goals, and goals never shrink. A plan that continues
        # another one therefore skips the parts that the other one finished, in either round.
        state = self.state
        if state.exhausted[index] or state.bytes >= goal:
            return
        part = self._parts[index]
        readings = islice(part.read(), state.taken[index], None)
        while state.bytes < goal:
            reading = next(readings, None)
            if reading is None:
                state.exhausted[index] = True
                self.positions[index] = part.size
                return
            document, self.positions[index] = reading
            location = Location(index, state.taken[index])
            state.taken[index] += 1
            state.bytes += byte_size(document.text)
            yield LocatedDocument(location, document)
