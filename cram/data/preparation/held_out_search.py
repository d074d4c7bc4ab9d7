"""Held-out text in the training rows, looked for by token ids: what the words of a text cannot tell.

Two things must not stand there: all ids of a held-out document as a whole document, and any `WINDOW` ids in a row of
one, wherever they begin. What many documents share is no leak but boilerplate: a window that `BOILERPLATE` documents of
the second pass have held is let through in those behind them. That depends on the order of the documents alone.

Source: the idea of comparing ids in windows is that of Lee et al. 2021, arXiv:2107.06499 (exact substrings of 50
tokens). Changed: hashes of windows instead of a suffix array, against the held-out documents alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, ngram_hashes, powers
from cram.data.shards.mapped_arrays import map_arrays, map_sealed_arrays, write_sealed_arrays
from cram.data.shards.shards import ShardSet
from cram.data.special import SpecialTokens
from cram.data.tokenizer import load_tokenizer

WINDOW = 64  # ids: about 50 words, longer than any quotation or title that documents share by right
BLOCK = WINDOW // 2  # wherever 64 ids in a row begin, they hold 32 that begin at a multiple of 32
# Documents that a window drops before it is taken for boilerplate. A licence, a menu or a notice is in dozens of a
# corpus that holds it at all; copies of one document that deduplication has left are fewer.
BOILERPLATE = 10
BORDER = -1  # stands behind each row where rows do not go on in the next one
BOILERPLATE_FILE = "boilerplate.safetensors"  # windows: uint64, the hashes of those let through, sorted

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOutIndex:
    """Hashes of the ids of held-out documents, without the tokens that frame them; all sorted, none twice.

    wholes: of a document. lengths: ids that a document may have. windows, blocks: of `WINDOW` and of `BLOCK` ids in
    a row. uint64 [...], but lengths int64.
    """

    wholes: Hashes
    lengths: Ids
    windows: Hashes
    blocks: Hashes

    @classmethod
    def of(cls, documents: Iterable[npt.NDArray[np.integer]]) -> "HeldOutIndex":
        """Of the ids of documents, the empty ones left out."""
        some = [ids.astype(np.uint64) for ids in documents if len(ids)]
        lengths = np.array([len(ids) for ids in some], np.int64)
        ends = np.cumsum(lengths)
        together = np.concatenate([*some, np.empty(0, np.uint64)])
        return cls(
            np.unique(_whole_hashes(together, ends - lengths, ends, int(lengths.max(initial=0)))),
            np.unique(lengths),
            *(
                np.unique(np.concatenate([np.empty(0, np.uint64), *(ngram_hashes(ids, size) for ids in some)]))
                for size in (WINDOW, BLOCK)
            ),
        )

    def save(self, path: Path) -> None:
        """Write them to a file."""
        write_sealed_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "HeldOutIndex":
        """Map the file that `save` wrote. Errors: CramError where it is damaged."""
        return cls(**map_sealed_arrays(path)[0])

    def equal(self, ids: npt.NDArray[np.integer], starts: Ids, ends: Ids) -> Bools:
        """Which of the documents `ids[starts:ends]`, without their frames, have all ids of a held-out one."""
        found = np.isin(ends - starts, self.lengths)
        hashes = _whole_hashes(ids.astype(np.uint64), starts[found], ends[found], int(self.lengths.max(initial=0)))
        found[found] = _is_in(hashes, self.wholes)[0]
        return found

    def windows_in(self, ids: npt.NDArray[np.integer]) -> tuple[Ids, Ids]:
        """Where windows of the held-out documents begin in `ids`, ascending, and their numbers in `windows`."""
        # Few texts share even one block, and these are a thirty-second of the windows there would be to look up.
        values = ids.astype(np.uint64)
        blocks = np.flatnonzero(_is_in(ngram_hashes(values, BLOCK, step=BLOCK), self.blocks)[0])
        begins = np.unique((blocks[:, None] * BLOCK + np.arange(-BLOCK, 1)).ravel())
        begins = begins[(begins >= 0) & (begins + WINDOW <= len(ids))]
        places, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for run in np.split(begins, np.flatnonzero(np.diff(begins) > 1) + 1):
            if len(run):
                hashes = ngram_hashes(values[run[0] : run[-1] + WINDOW], WINDOW)
                found, where = _is_in(hashes, self.windows)
                places.append(run[found])
                numbers.append(where[found])
        return np.concatenate(places), np.concatenate(numbers)


def content(ids: npt.NDArray[np.integer], special: SpecialTokens) -> npt.NDArray[np.integer]:
    """The ids of a document without those that frame it."""
    return ids[special.frame - 1 : -1]


@dataclass(frozen=True)
class Check:
    """What a search of the rows for held-out documents came to.

    documents: held-out ones that are stored. sequences_found: how often all ids of one stand in the rows as a whole
    document. windows: different ones of `WINDOW` ids. windows_found: of these those in the rows that are no
    boilerplate. boilerplate_windows: those in the rows that are; boilerplate_documents: pieces of documents with one.
    """

    documents: int
    sequences_found: int
    windows: int
    windows_found: int
    boilerplate_windows: int
    boilerplate_documents: int

    @property
    def leaks(self) -> int:
        """What must not be in the rows."""
        return self.sequences_found + self.windows_found


def check_rows(shards: ShardSet, held_out: HeldOutIndex) -> Check:
    """Search all rows for the ids of the stored held-out documents.

    Where rows are filled greedily a document goes on in the next row, and so does the search. Best fit cuts a document
    that is longer than a row into whole rows and a rest elsewhere: windows are found within each of these, none across
    them, and such a document cannot be told as a whole; nor can any where no token begins a document.
    """
    special = SpecialTokens.of(load_tokenizer(shards.tokenizer_path))
    boilerplate = map_arrays(shards.folder / BOILERPLATE_FILE)[0]["windows"]
    sequences = 0
    windows: set[int] = set()
    pieces: set[int] = set()
    joined = shards.manifest["settings"]["packing"] == "greedy"
    for stream, before in _streams(shards, special, joined, int(held_out.lengths.max(initial=0))):
        places, numbers = held_out.windows_in(stream)
        windows.update(numbers.tolist())
        usual = _is_in(held_out.windows[numbers], boilerplate)[0]
        ends = np.flatnonzero((stream == special.sep) | (stream == BORDER))
        pieces.update((before + np.searchsorted(ends, places[usual])).tolist())
        if joined or special.cls is not None:
            sequences += _count_sequences(stream, held_out, special)
    known = _is_in(held_out.windows[sorted(windows)], boilerplate)[0]
    found = int(np.count_nonzero(~known))
    return Check(len(shards.held_out()), sequences, len(held_out.windows), found, len(known) - found, len(pieces))


def _streams(shards: ShardSet, special: SpecialTokens, joined: bool, longest: int) -> Iterator[tuple[Ids, int]]:
    """The rows as streams of ids, a document that goes on again in the next stream; ended pieces before each."""
    rest, before = np.empty(0, np.int64), 0
    for _, tokens, _ in shards.blocks():
        rows = tokens.astype(np.int64)
        if not joined:
            rows = np.pad(rows, ((0, 0), (0, 1)), constant_values=BORDER)
        stream = np.concatenate([rest, rows.ravel()])
        yield stream, before
        ended = (stream == special.sep) | (stream == BORDER)
        last = int(np.flatnonzero(ended)[-1]) + 1 if ended.any() else 0
        # Of a document that is longer than every held-out one its end is enough, for windows.
        kept = max(last, len(stream) - longest - 2 * WINDOW)
        rest = stream[kept:]
        before += int(np.count_nonzero(ended[:kept]))


def _count_sequences(stream: Ids, held_out: HeldOutIndex, special: SpecialTokens) -> int:
    """How many documents that begin and end in a stream have all ids of a held-out one."""
    stream = stream[stream != special.pad]
    ends = np.flatnonzero((stream == special.sep) | (stream == BORDER))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    whole = stream[ends] == special.sep
    if special.cls is not None:
        whole &= stream[starts] == special.cls
    return int(held_out.equal(stream, starts[whole] + special.frame - 1, ends[whole]).sum())


def _whole_hashes(ids: Hashes, starts: Ids, ends: Ids, longest: int) -> Hashes:
    """A hash of each `ids[start:end]`, none of them empty or longer than `longest`."""
    if not len(starts):
        return np.empty(0, np.uint64)
    lengths = ends - starts
    borders = np.cumsum(lengths) - lengths
    within = np.arange(int(lengths.sum())) - np.repeat(borders, lengths)
    values = ids[within + np.repeat(starts, lengths)] * powers(longest)[within]
    sums = np.add.reduceat(values, borders) + lengths.astype(np.uint64)
    return ngram_hashes(sums, 1)  # mixes the bits


def _is_in(hashes: Hashes, sorted_hashes: Hashes) -> tuple[Bools, Ids]:
    """Which hashes are among sorted ones, and where they are or would be."""
    places = np.searchsorted(sorted_hashes, hashes)
    return (sorted_hashes.take(places, mode="clip") == hashes) if len(sorted_hashes) else places < 0, places
