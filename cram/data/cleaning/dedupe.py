"""Documents that repeat others, word for word or nearly: signatures of texts, and what is dropped, in bounded memory.

Source: Broder 1997, On the resemblance and containment of documents (MinHash of shingles); bands as in Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3; NearDup of Lee et al. 2021, arXiv:2107.06499 (shingles
of 5 words, clusters as connected components). Changed: candidates are confirmed by all their hashes, not by edit
distance, so that no text is read again; a bucket's work is linear in its size; held-out documents come first.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, Words, ngram_hashes

Signatures: TypeAlias = npt.NDArray[np.uint32]
Numbers: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Pairs: TypeAlias = tuple[Numbers, Numbers]

HASHES, SHINGLE = 128, 5
SEED = 1
MOST_ROWS = 8
DETECTION = 0.94  # 16 bands of 8 hashes, the usual choice, find a pair of similarity 0.8 with probability 0.947
KEYS_AT_ONCE = 1 << 24  # 0.6 GB while they are sorted
BLOCK = 1 << 15  # documents or pairs: 32 MB of signatures
SAMPLES = 50


def sign_texts(texts: Sequence[Words], near: bool = True) -> tuple[Hashes, Signatures | None]:
    """Hashes by which `find_duplicates` compares texts.

    exact: uint64 [texts, 2], 128 bits that are equal where the letters and digits of the words are the same in the same
    order, wherever words end: a character that is not seen may stand between two words or within one.
    minhash: uint32 [texts, HASHES], None unless `near`. The share that two texts have in common is in the mean the
    Jaccard similarity s of their sets of 5-word shingles, with a standard deviation of at most sqrt(s (1 - s) / 128);
    a text of fewer words is one shingle.
    """
    exact = b"".join(blake2b("".join(text.words).encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(exact, "<u8").reshape(-1, 2), _minhashes(texts) if near else None


def _minhashes(texts: Sequence[Words]) -> Signatures:
    from rensa import RMinHash

    hashes = [text.hashes if len(text.hashes) >= SHINGLE else _padded(text.hashes) for text in texts]
    ends = np.cumsum([len(row) for row in hashes])
    words_left = np.repeat(ends, [len(row) for row in hashes]) - np.arange(ends[-1] if texts else 0)
    inside = words_left[: 1 - SHINGLE] >= SHINGLE  # the other runs begin in one text and end in another
    shingles = ngram_hashes(np.concatenate([*hashes, np.empty(0, np.uint64)]), SHINGLE)[inside]
    offsets = [0, *(ends - (SHINGLE - 1) * np.arange(1, len(ends) + 1)).tolist()]
    rows = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, HASHES, SEED).to_rows()
    return np.array(rows, np.uint32).reshape(-1, HASHES)


def _padded(hashes: Hashes) -> Hashes:
    return np.append(hashes, np.zeros(SHINGLE - len(hashes), np.uint64))


def banding(threshold: float) -> tuple[int, int]:
    """Bands, and hashes a band, that find pairs whose similarity is `threshold`: 16 and 8 at 0.8.

    Two documents are compared if all hashes of some band are equal, which happens with probability
    1 - (1 - threshold ** rows) ** bands. The most rows, up to 8, that give 0.94 are taken: more rows, less work.
    `threshold` is above 0 and at most 1.
    """
    for rows in range(MOST_ROWS, 1, -1):
        bands = HASHES // rows
        if 1 - (1 - threshold**rows) ** bands >= DETECTION:
            return bands, rows
    return HASHES, 1


@dataclass(frozen=True)
class Duplicates:
    """Training documents to drop, by reason: bool [documents] each, no document in two.

    A document whose twin or near twin is held out counts as `near_held_out`, all others with a twin as `exact`.
    `pairs`: up to `SAMPLES` for each reason, spread over the corpus: number of a dropped document, number of the kept
    one that stands for it, share of their hashes that are equal (of a chain's ends it may lie below the threshold).
    """

    exact: Mask
    near: Mask
    near_held_out: Mask
    pairs: list[tuple[int, int, float]]


def find_duplicates(
    exact: Sequence[Hashes] | None,
    minhash: Sequence[Signatures] | None,
    held_out: Mask,
    candidates: Mask,
    threshold: float | None,
    order: Numbers | None = None,
) -> Duplicates:
    """Which training documents repeat another: the lowest number of those alike is kept, or the held-out ones.

    `exact` and `minhash` are what `signatures` gave, in segments, arrays or memory maps: row `order[i]` of their
    concatenation (row i without `order`) is document i. None: such duplicates are not looked for, nor are near ones
    without a `threshold`. `held_out` and `candidates`: bool [documents]; what is no candidate takes no part.

    Documents are alike if the letters of all words are, or if the share of equal hashes reaches `threshold`; what is
    alike to the same document is alike, so chains go together. A pair must share a band, see `banding`, and one of the
    two must be the first of all that share it or stand next to the other in their row.

    The result depends on neither the segments nor `KEYS_AT_ONCE`. Memory, besides the arguments: 15 bytes a document
    (4 of them for the clusters, 8 from 2**31 documents on; the rest masks) and up to 0.6 GB. Beyond `KEYS_AT_ONCE`
    documents each band is read several times, each time for a part of its keys.
    """
    clusters = _Clusters(held_out)
    if exact is not None:
        _join(clusters, _Table(exact, order), candidates, slice(0, 2), 1.0)
    absorbed, by_held_out = clusters.absorbed()
    copies = absorbed & ~by_held_out & ~held_out
    table = _Table(minhash, order) if minhash is not None else None
    if table is not None and threshold is not None:
        bands, rows = banding(threshold)
        active = candidates & ~absorbed
        for band in range(bands):
            _join(clusters, table, active, slice(band * rows, (band + 1) * rows), threshold)
        absorbed, by_held_out = clusters.absorbed()
    alike = absorbed & ~copies & ~held_out
    reasons = copies, alike & ~by_held_out, alike & by_held_out
    return Duplicates(*reasons, [pair for mask in reasons for pair in _samples(mask, clusters, table)])


class _Table:
    """The rows of segments, by document number."""

    def __init__(self, segments: Sequence[np.ndarray], order: Numbers | None) -> None:
        self._segments = [np.asarray(segment) for segment in segments]
        self._begins = np.cumsum([0, *map(len, segments)])
        self._order = order

    def take(self, numbers: Numbers, columns: slice = slice(None)) -> np.ndarray:
        """A copy of some columns of the documents `numbers`, a row each."""
        rows = numbers if self._order is None else self._order[numbers]
        owners = np.searchsorted(self._begins, rows, side="right") - 1
        found = np.empty((len(rows), len(range(*columns.indices(self._segments[0].shape[1])))), self._segments[0].dtype)
        for owner in np.unique(owners):
            here = owners == owner
            found[here] = self._segments[owner][rows[here] - self._begins[owner], columns]
        return found

    def similarity(self, a: Numbers, b: Numbers) -> npt.NDArray[np.float64]:
        """The share of equal columns of each pair."""
        return (self.take(a) == self.take(b)).mean(axis=1)


class _Clusters:
    """Which document stands for which: a forest whose roots are kept, held-out before others, then the lowest."""

    def __init__(self, held_out: Mask) -> None:
        self._held_out = held_out
        self._parent = np.arange(len(held_out), dtype=np.int32 if len(held_out) < 2**31 else np.int64)

    def roots(self, numbers: Numbers) -> Numbers:
        """The documents that stand for these."""
        root = self._parent[numbers]
        while not np.array_equal(higher := self._parent[root], root):
            root = higher
        self._parent[numbers] = root
        return root.astype(np.int64)

    def apart(self, a: Numbers, b: Numbers) -> Pairs:
        """The pairs that are not in one cluster yet."""
        apart = self.roots(a) != self.roots(b)
        return a[apart], b[apart]

    def join(self, a: Numbers, b: Numbers) -> None:
        """Make one cluster of those of each pair."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(a):
            return
        nodes, ends = np.unique(self.roots(np.concatenate([a, b])), return_inverse=True)
        edges = np.ones(len(a), bool), (ends[: len(a)], ends[len(a) :])
        labels = connected_components(coo_array(edges, shape=(len(nodes), len(nodes))), directed=False)[1]
        best_first = np.lexsort((nodes, ~self._held_out[nodes]))
        firsts = best_first[np.unique(labels[best_first], return_index=True)[1]]
        self._parent[nodes] = nodes[firsts[labels]]

    def absorbed(self) -> tuple[Mask, Mask]:
        """Documents that another one stands for, and those of them for which it is a held-out one."""
        absorbed, by_held_out = (np.zeros(len(self._parent), bool) for _ in range(2))
        for numbers in _blocks(np.ones(len(self._parent), bool)):
            roots = self.roots(numbers)
            absorbed[numbers] = roots != numbers
            by_held_out[numbers] = (roots != numbers) & self._held_out[roots]
        return absorbed, by_held_out

    def neighbours(self, keys: Hashes, numbers: Numbers) -> Iterator[Pairs]:
        """Each document with the first of equal key, held-out before others, and with the one before it.

        The lowest bit of `keys` is zero and overwritten.
        """
        keys |= ~self._held_out[numbers]  # of equal keys the held-out sort first
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order] >> np.uint64(1), numbers[order]
        first = 0
        for start in range(1, len(keys), BLOCK):
            here = np.arange(start, min(start + BLOCK, len(keys)))
            equal = keys[here] == keys[here - 1]
            firsts = np.maximum.accumulate(np.where(equal, first, here))
            first = firsts[-1]
            firsts, here = firsts[equal], here[equal]
            others = here[firsts < here - 1]
            yield numbers[np.append(firsts, others - 1)], numbers[np.append(here, others)]


def _join(clusters: _Clusters, table: _Table, active: Mask, columns: slice, threshold: float) -> None:
    """Put active documents that are equal in `columns` and alike by `threshold` into one cluster."""
    passes = max(1, math.ceil(np.count_nonzero(active) / KEYS_AT_ONCE))
    for number in range(passes):
        for pairs in clusters.neighbours(*_keys(table, active, columns, passes, number)):
            a, b = clusters.apart(*pairs)
            alike = table.similarity(a, b) >= threshold
            clusters.join(a[alike], b[alike])


def _keys(table: _Table, active: Mask, columns: slice, passes: int, number: int) -> tuple[Hashes, Numbers]:
    """The keys of one pass, each 63 bits shifted up, and whose they are."""
    keys, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for block in _blocks(active):
        rows = table.take(block, columns).astype(np.uint64)
        found = ngram_hashes(rows.ravel(), rows.shape[1], step=rows.shape[1]) & ~np.uint64(1)
        mine = (found >> np.uint64(1)) % np.uint64(passes) == number
        keys.append(found[mine])
        numbers.append(block[mine])
    return np.concatenate(keys), np.concatenate(numbers)


def _blocks(mask: Mask) -> Iterator[Numbers]:
    """The numbers of the documents in a mask, in order."""
    for start in range(0, len(mask), BLOCK):
        yield np.flatnonzero(mask[start : start + BLOCK]) + start


def _samples(mask: Mask, clusters: _Clusters, table: _Table | None) -> list[tuple[int, int, float]]:
    numbers = np.flatnonzero(mask)
    dropped = numbers[np.linspace(0, len(numbers) - 1, min(SAMPLES, len(numbers))).astype(np.int64)]
    kept = clusters.roots(dropped)
    similarity = table.similarity(dropped, kept) if table and len(kept) else np.ones(len(kept))
    return list(zip(dropped.tolist(), kept.tolist(), similarity.tolist(), strict=True))
