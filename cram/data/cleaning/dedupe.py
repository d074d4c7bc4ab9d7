"""Find documents that repeat others, word for word or nearly, in bounded memory.

Texts are reduced to signatures in the first pass (`sign_texts`); afterwards the signatures of all documents are
compared (`find_duplicates`), by document number.

Source: Broder 1997, On the resemblance and containment of documents (MinHash of shingles); bands as in Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3; NearDup of Lee et al. 2021, arXiv:2107.06499 (shingles
of 5 words, clusters as connected components). Changed: candidates are confirmed by all their hashes, not by edit
distance, so that no text is read again; the work for a bucket is linear in its size; held-out documents come first.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, Words, ngram_hashes

Signatures: TypeAlias = npt.NDArray[np.uint32]
Numbers: TypeAlias = npt.NDArray[np.int64]  # of documents
Mask: TypeAlias = npt.NDArray[np.bool_]
NumberPairs: TypeAlias = tuple[Numbers, Numbers]

HASHES = 128  # of a signature
SHINGLE = 5  # words
SEED = 1
LONGEST_BAND = 8  # hashes
DETECTION = 0.94  # 16 bands of 8 hashes, the usual choice, find a pair of similarity 0.8 with probability 0.947
KEYS_AT_ONCE = 1 << 24  # 0.6 GB while they are sorted
BLOCK = 1 << 15  # documents or pairs: 32 MB of signatures
SAMPLES = 50  # pairs that are shown for each reason


def sign_texts(texts: Sequence[Words], near: bool = True) -> tuple[Hashes, Signatures | None]:
    """Compute the hashes by which `find_duplicates` compares texts.

    Returns:
        exact: uint64 [texts, 2]. These 128 bits are equal if the letters and digits of all words are the same in the
            same order, wherever the words end: an invisible character may stand between two words or within one.
        minhash: uint32 [texts, HASHES], or None without `near`. The share of hashes that two texts have in common is on
            average the Jaccard similarity s of their sets of 5-word shingles, with a standard deviation of at most
            sqrt(s (1 - s) / 128). A text of fewer than 5 words is one shingle.
    """
    exact = b"".join(blake2b(text.letters, digest_size=16).digest() for text in texts)
    return np.frombuffer(exact, "<u8").reshape(-1, 2), _compute_minhashes(texts) if near else None


def _compute_minhashes(texts: Sequence[Words]) -> Signatures:
    from rensa import RMinHash

    hashes = [text.hashes if len(text.hashes) >= SHINGLE else _pad_to_shingle(text.hashes) for text in texts]
    ends = np.cumsum([len(row) for row in hashes], dtype=np.int64)
    shingles = ngram_hashes(np.concatenate([*hashes, np.empty(0, np.uint64)]), SHINGLE)
    inside = np.ones(len(shingles), bool)
    inside[np.subtract.outer(ends[:-1], np.arange(1, SHINGLE))] = False  # they cross from one text into the next
    offsets = [0, *(ends - (SHINGLE - 1) * np.arange(1, len(ends) + 1)).tolist()]
    minhashes = array("I")  # takes in a list of integers in a third of the time of numpy
    for row in RMinHash.digest_matrix_from_flat_token_hashes(shingles[inside], offsets, HASHES, SEED).to_rows():
        minhashes.fromlist(row)
    return np.frombuffer(minhashes, np.uint32).reshape(-1, HASHES)


def _pad_to_shingle(hashes: Hashes) -> Hashes:
    return np.append(hashes, np.zeros(SHINGLE - len(hashes), np.uint64))


def choose_bands(threshold: float) -> tuple[int, int]:
    """Return how many bands, and how many hashes in each, find pairs of similarity `threshold`: 16 and 8 at 0.8.

    Two documents are compared if all hashes of some band are equal, which happens with probability
    1 - (1 - threshold ** hashes) ** bands. The longest bands that reach a probability of 0.94 are chosen, because
    longer bands give fewer pairs to compare. `threshold` is above 0 and at most 1.
    """
    for hashes in range(LONGEST_BAND, 1, -1):
        bands = HASHES // hashes
        if 1 - (1 - threshold**hashes) ** bands >= DETECTION:
            return bands, hashes
    return HASHES, 1


@dataclass(frozen=True)
class Duplicates:
    """Training documents to drop, by reason. Each mask is bool [documents], and no document is in two of them.

    Attributes:
        exact: documents with a twin.
        near: documents with a near twin.
        near_held_out: documents whose twin or near twin is held out.
        pairs: up to `SAMPLES` examples for each reason, spread over the corpus: the number of a dropped document, the
            number of the document that is kept for it, and the share of their hashes that are equal. For the two ends
            of a chain of near twins the share may lie below the threshold.
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
    """Find the training documents that repeat another document.

    Documents are alike if the letters of all their words are the same, or if the share of equal hashes reaches
    `threshold`. Documents that are alike to the same document are alike too, so chains form one cluster. Of a cluster,
    all held-out documents are kept; if there are none, the document with the lowest number is kept.

    Near twins are compared only if they share a band (see `choose_bands`), and if one of them is the first of all
    documents that share it, or the two are neighbours among these.

    Args:
        exact: the first result of `sign_texts`, in segments (arrays or memory maps); None: twins are not looked for.
        minhash: the second result of `sign_texts`, in segments; None: near twins are not looked for.
        held_out: bool [documents].
        candidates: bool [documents]; the other documents are ignored.
        threshold: least Jaccard similarity of near twins; None: they are not looked for.
        order: scan index of each document number: document i is row `order[i]` of the concatenated segments. None: row
            i.

    The result depends neither on the segments nor on `KEYS_AT_ONCE`. Memory, besides the arguments: 15 bytes a document
    (4 of them for the clusters, 8 from 2**31 documents on; the rest are masks) and up to 0.6 GB. If there are more than
    `KEYS_AT_ONCE` documents, each band is read several times, each time for a part of its keys.
    """
    clusters = _Clusters(held_out)
    if exact is not None:
        _join_equal(clusters, _SignatureRows(exact, order), candidates, slice(0, 2), 1.0)
    absorbed, by_held_out = clusters.find_absorbed()
    copies = absorbed & ~by_held_out & ~held_out
    minhashes = _SignatureRows(minhash, order) if minhash is not None else None
    if minhashes is not None and threshold is not None:
        bands, hashes = choose_bands(threshold)
        active = candidates & ~absorbed
        for band in range(bands):
            _join_equal(clusters, minhashes, active, slice(band * hashes, (band + 1) * hashes), threshold)
        absorbed, by_held_out = clusters.find_absorbed()
    alike = absorbed & ~copies & ~held_out
    reasons = copies, alike & ~by_held_out, alike & by_held_out
    return Duplicates(*reasons, [pair for mask in reasons for pair in _sample_pairs(mask, clusters, minhashes)])


class _SignatureRows:
    """The rows of segments, found by document number."""

    def __init__(self, segments: Sequence[np.ndarray], order: Numbers | None) -> None:
        self._segments = [np.asarray(segment) for segment in segments]
        self._begins = np.cumsum([0, *map(len, segments)])
        self._order = order

    def take(self, numbers: Numbers, columns: slice = slice(None)) -> np.ndarray:
        """Copy some columns of documents, one row for each."""
        rows = numbers if self._order is None else self._order[numbers]
        owners = np.searchsorted(self._begins, rows, side="right") - 1
        width = len(range(*columns.indices(self._segments[0].shape[1])))
        taken = np.empty((len(rows), width), self._segments[0].dtype)
        for owner in np.unique(owners):
            in_segment = owners == owner
            taken[in_segment] = self._segments[owner][rows[in_segment] - self._begins[owner], columns]
        return taken

    def similarity(self, a: Numbers, b: Numbers) -> npt.NDArray[np.float64]:
        """Return the share of equal columns of each pair."""
        equal: Mask = self.take(a) == self.take(b)
        return np.asarray(equal.mean(axis=1), np.float64)


class _Clusters:
    """Clusters of documents that are alike, as a forest. The root of a tree is kept and stands for the others.

    The root is a held-out document if the cluster has one, else the document with the lowest number.
    """

    def __init__(self, held_out: Mask) -> None:
        self._held_out = held_out
        self._parent = np.arange(len(held_out), dtype=np.int32 if len(held_out) < 2**31 else np.int64)

    def find_roots(self, numbers: Numbers) -> Numbers:
        """Return the documents that stand for these."""
        roots = self._parent[numbers]
        while not np.array_equal(parents := self._parent[roots], roots):
            roots = parents
        self._parent[numbers] = roots  # shortens the paths
        return roots.astype(np.int64)

    def select_apart(self, a: Numbers, b: Numbers) -> NumberPairs:
        """Return the pairs that are not in one cluster yet."""
        apart = self.find_roots(a) != self.find_roots(b)
        return a[apart], b[apart]

    def join(self, a: Numbers, b: Numbers) -> None:
        """Join the clusters of the two documents of each pair."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(a):
            return
        nodes, ends = np.unique(self.find_roots(np.concatenate([a, b])), return_inverse=True)
        edges = np.ones(len(a), bool), (ends[: len(a)], ends[len(a) :])
        labels = connected_components(coo_array(edges, shape=(len(nodes), len(nodes))), directed=False)[1]
        best_first = np.lexsort((nodes, ~self._held_out[nodes]))
        firsts = best_first[np.unique(labels[best_first], return_index=True)[1]]
        self._parent[nodes] = nodes[firsts[labels]]

    def find_absorbed(self) -> tuple[Mask, Mask]:
        """Return the documents for which another one stands, and those of them for which a held-out one does."""
        absorbed, by_held_out = (np.zeros(len(self._parent), bool) for _ in range(2))
        for numbers in _split_blocks(np.ones(len(self._parent), bool)):
            roots = self.find_roots(numbers)
            absorbed[numbers] = roots != numbers
            by_held_out[numbers] = (roots != numbers) & self._held_out[roots]
        return absorbed, by_held_out

    def pair_neighbours(self, keys: Hashes, numbers: Numbers) -> Iterator[NumberPairs]:
        """Pair each document with the first document of equal key, and with the one before it.

        Held-out documents come first. The lowest bit of `keys` must be zero and is overwritten.
        """
        keys |= ~self._held_out[numbers]  # so held-out documents sort first among equal keys
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


def _join_equal(
    clusters: _Clusters, signatures: _SignatureRows, active: Mask, columns: slice, threshold: float
) -> None:
    """Join the clusters of active documents that are equal in `columns` and whose similarity reaches `threshold`."""
    passes = max(1, math.ceil(np.count_nonzero(active) / KEYS_AT_ONCE))
    for number in range(passes):
        for pairs in clusters.pair_neighbours(*_make_keys(signatures, active, columns, passes, number)):
            a, b = clusters.select_apart(*pairs)
            alike = signatures.similarity(a, b) >= threshold
            clusters.join(a[alike], b[alike])


def _make_keys(
    signatures: _SignatureRows, active: Mask, columns: slice, passes: int, number: int
) -> tuple[Hashes, Numbers]:
    """Return the keys of one pass, each 63 bits shifted up by one, and the documents that they belong to."""
    keys, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for block in _split_blocks(active):
        rows = signatures.take(block, columns).astype(np.uint64)
        row_keys = ngram_hashes(rows.ravel(), rows.shape[1], step=rows.shape[1]) & ~np.uint64(1)
        in_pass = (row_keys >> np.uint64(1)) % np.uint64(passes) == number
        keys.append(row_keys[in_pass])
        numbers.append(block[in_pass])
    return np.concatenate(keys), np.concatenate(numbers)


def _split_blocks(mask: Mask) -> Iterator[Numbers]:
    """Yield the numbers of the documents in a mask, in order, a block at a time."""
    for start in range(0, len(mask), BLOCK):
        yield np.flatnonzero(mask[start : start + BLOCK]) + start


def _sample_pairs(mask: Mask, clusters: _Clusters, minhashes: _SignatureRows | None) -> list[tuple[int, int, float]]:
    """Return some dropped documents of a mask, spread over the corpus, with what is kept for each."""
    numbers = np.flatnonzero(mask)
    dropped = numbers[np.linspace(0, len(numbers) - 1, min(SAMPLES, len(numbers))).astype(np.int64)]
    kept = clusters.find_roots(dropped)
    similarity = minhashes.similarity(dropped, kept) if minhashes and len(kept) else np.ones(len(kept))
    return list(zip(dropped.tolist(), kept.tolist(), similarity.tolist(), strict=True))
