"""Which documents of a source are read, and in which order: the scan order.

A plan can stop after any document, and another process can go on with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from math import inf
from typing import Any

from cram.data.text.document import LocatedDocument, Location, byte_size
from cram.data.text.source import PartGroup, Source

FIRST_LIMIT = 64_000_000  # bytes of text that groups with shares give before it is known which one ends first
GROWTH = 1.5  # of this limit. Each time, the parts are opened again; what is read beyond the need is scanned in vain.
# How much more a group is read than the group that has ended allows, for what is dropped later.
MARGIN = 1.1


@dataclass
class ReadingState:
    """How far a reading plan has come.

    Attributes:
        taken: how many documents of each part were read, from its first one on.
        exhausted: for each part, whether it was read to its end.
        bytes: bytes (UTF-8) of all documents read.
        group_bytes: these bytes by group of the source; empty for a single group.
    """

    taken: list[int]
    exhausted: list[bool]
    bytes: int = 0
    group_bytes: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a copy of the state that can be written as JSON; `ReadingState(**copy)` restores it."""
        return {
            "taken": list(self.taken),
            "exhausted": list(self.exhausted),
            "bytes": self.bytes,
            "group_bytes": list(self.group_bytes),
        }


class ReadingPlan:
    """Reads each part's share of the documents, until their bytes reach `limit` (all documents if None).

    A part's share of the limit is its share of the source's bytes on the disk; parts of unknown size count equally.
    The first round reads each part up to its share; a later part also reads what the parts before it lacked. If the
    first round does not reach the limit, a second round reads on in the parts that hold more.

    In a source of several groups, each group has its own share of the limit, and is read in two such rounds. When all
    text of a group has been read, the others are read only as far as their shares of the tokens need; but a sample of
    groups that were not measured yet takes its share of each. Without a limit, a limit grows until a group ends.

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
        self._groups = source.groups
        self._several = len(self._groups) > 1
        self._keeps_shares = self._limit == inf or all(group.bytes_per_token for group in self._groups)
        self._group_shares = _byte_shares(self._groups)
        count = len(self._parts)
        start = ReadingState([0] * count, [False] * count, 0, [0] * len(self._groups) if self._several else [])
        self.state = ReadingState(**state.to_json()) if state else start
        assert len(self.state.taken) == len(self.state.exhausted) == count
        self.positions = [
            part.size if exhausted else 0 for part, exhausted in zip(self._parts, self.state.exhausted, strict=True)
        ]

    def __iter__(self) -> Iterator[LocatedDocument]:
        """Yield the documents of the plan, each with its location."""
        limit: float = FIRST_LIMIT if self._several and self._limit == inf else self._limit
        while True:
            for group in range(len(self._groups)):
                yield from self._read_group(group, limit)
            if self._limit < inf or not self._several or self._highest_limit() <= limit:
                return
            limit *= GROWTH

    def _read_group(self, group: int, limit: float) -> Iterator[LocatedDocument]:
        # What is read depends only on the state and on the limits, and no goal is below an earlier one or below that of
        # a group that has ended meanwhile. A plan that continues another one therefore skips what the other finished.
        goal = min(limit, self._highest_limit()) * self._group_shares[group] if self._several else limit
        parts = self._groups[group].parts
        for goals in (self._first_round_goals(parts, goal), [goal] * len(parts)):
            for index, part_goal in zip(parts, goals, strict=True):
                yield from self._read_part(index, group, part_goal)

    def _highest_limit(self) -> float:
        """The limit above which the groups that have been read to their end lack text for their shares."""
        if not self._keeps_shares:
            return inf
        ended = (
            self._bytes_of(number) / self._group_shares[number] * MARGIN
            for number, group in enumerate(self._groups)
            if all(self.state.exhausted[part] for part in group.parts)
        )
        return min(ended, default=inf)

    def _first_round_goals(self, parts: Sequence[int], limit: float) -> list[float]:
        """For each of the parts, the bytes of text that it and the parts before it shall have given."""
        if limit == inf:
            return [inf] * len(parts)
        sizes = [self._parts[index].size for index in parts]
        if not any(sizes):
            sizes = [1] * len(sizes)
        total = sum(sizes)
        return [limit * size // total for size in accumulate(sizes)]

    def _read_part(self, index: int, group: int, goal: float) -> Iterator[LocatedDocument]:
        state = self.state
        if state.exhausted[index] or self._bytes_of(group) >= goal:
            return
        part = self._parts[index]
        readings = islice(part.read(), state.taken[index], None)
        while self._bytes_of(group) < goal:
            reading = next(readings, None)
            if reading is None:
                state.exhausted[index] = True
                self.positions[index] = part.size
                return
            document, self.positions[index] = reading
            location = Location(index, state.taken[index])
            size = byte_size(document.text)
            state.taken[index] += 1
            state.bytes += size
            if self._several:
                state.group_bytes[group] += size
            yield LocatedDocument(location, document)

    def _bytes_of(self, group: int) -> int:
        return self.state.group_bytes[group] if self._several else self.state.bytes


def _byte_shares(groups: list[PartGroup]) -> list[float]:
    """For each group, its share of the bytes of text, with which it has its share of the tokens."""
    sizes = [group.share * (group.bytes_per_token or 1.0) for group in groups]
    return [size / sum(sizes) for size in sizes]
