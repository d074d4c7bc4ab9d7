"""Which documents are held out: decided by a hash of the text, so that it is the same everywhere."""

import heapq
from collections.abc import Iterable, Iterator
from hashlib import sha256

from cram.data.shards import HeldOut
from cram.data.sources import Document

MOST_STORED = 4000  # documents: about two million tokens to evaluate on, in a file of some megabytes


class HeldOutSplit:
    """Takes the held-out documents out of a stream: those whose text's hash, read as a share, lies below `share`.

    Exact duplicates have one hash and go together. Where no hash is that low, the lowest of all is held out
    instead, so that two different documents suffice: the lowest so far is kept back until a lower one comes.
    """

    def __init__(self, share: float):
        self._limit = int(share * 2**64)
        self._lowest: list[tuple[int, str]] = []  # heap of (-hash, text): its top has the highest of the hashes
        self._stored: set[int] = set()
        self.found = 0  # held-out documents, duplicates and those that are not stored included

    def training(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents that are not held out, in order but for the one kept back."""
        kept_back: list[Document] = []
        lowest = 2**64
        for document in documents:
            number = _hash(document.text)
            if number == lowest:
                kept_back.append(document)
                continue
            if number < lowest:
                yield from kept_back
                kept_back = []
                lowest = number
            if number < self._limit:
                self._hold_out(number, document)
                lowest = -1
            elif number == lowest:
                kept_back = [document]
            else:
                yield document
        for document in kept_back:
            self._hold_out(lowest, document)

    def stored(self) -> list[HeldOut]:
        """The held-out documents with the lowest hashes, each text once, in the order of the hashes."""
        texts = (text for _, text in sorted(self._lowest, reverse=True))
        return [HeldOut(text, sha256(text.encode()).hexdigest()) for text in texts]

    def _hold_out(self, number: int, document: Document) -> None:
        self.found += 1
        if number in self._stored:
            return
        self._stored.add(number)
        heapq.heappush(self._lowest, (-number, document.text))
        if len(self._lowest) > MOST_STORED:
            self._stored.remove(-heapq.heappop(self._lowest)[0])


def _hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8])
