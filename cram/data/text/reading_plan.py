"""Which documents of a source are read, in which order, as a plan that can be left and taken up again."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from math import inf

from cram.data.text.formats import Document, size
from cram.data.text.sources import Source


class Spread:
    """Documents from every part its share, until their bytes reach `limit` (all of them when None).

    A part's share of the limit is its share of the source's bytes on the disk; parts of unknown sizes count equally.
    What an earlier part left of its share goes to the later ones. Where the shares do not reach the limit, a second
    round reads on in the parts that hold more.

    taken, exhausted, bytes: where the plan stands: how many documents each part has given, whether it has been read
    to its end, and the bytes of their text (UTF-8) so far. A plan made from those of another one goes on behind the
    last document that the other has given; it opens no part that has given its share, and reads one that it goes on
    with from the start.
    """

    def __init__(
        self,
        source: Source,
        limit: int | None,
        taken: Sequence[int] | None = None,
        exhausted: Sequence[bool] | None = None,
        bytes: int = 0,
    ):
        self._parts = source.parts
        self._limit = inf if limit is None else limit
        self.taken = list(taken or [0] * len(self._parts))
        self.exhausted = list(exhausted or [False] * len(self._parts))
        self.bytes = bytes
        assert len(self.taken) == len(self.exhausted) == len(self._parts)
        for part, done in zip(self._parts, self.exhausted, strict=True):
            part.position = part.size if done else 0

    def __iter__(self) -> Iterator[tuple[int, int, Document]]:
        """Index of the part, number of the record in it (from 0, those with faults count), and the document."""
        for goals in (self._goals(), [self._limit] * len(self._parts)):
            for index, goal in enumerate(goals):
                yield from self._read(index, goal)

    def _goals(self) -> list[float]:
        """The bytes to have in all when each part has given its share."""
        if self._limit == inf:
            return [inf] * len(self._parts)
        sizes = [part.size for part in self._parts]
        if not any(sizes):
            sizes = [1] * len(sizes)
        total = sum(sizes)
        return [self._limit * reached // total for reached in accumulate(sizes)]

    def _read(self, index: int, goal: float) -> Iterator[tuple[int, int, Document]]:
        # All that decides is the state and what does not change, and no goal is below an earlier one: so a plan
        # that is taken up again passes over what the first one had finished, in either round.
        if self.exhausted[index] or self.bytes >= goal:
            return
        documents = islice(self._parts[index].documents(), self.taken[index], None)
        while self.bytes < goal:
            document = next(documents, None)
            if document is None:
                self.exhausted[index] = True
                return
            record = self.taken[index]
            self.taken[index] += 1
            self.bytes += size(document.text)
            yield index, record, document
