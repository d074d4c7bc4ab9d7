"""Searches the training rows for held-out text by token ids, because comparing words does not find everything.

Two things must not be in the rows: a document with exactly the ids of a held-out document, and any `WINDOW` consecutive
ids of a held-out document, wherever they begin. Text that many documents share is boilerplate and not a leak: after
`BOILERPLATE` documents of the second pass contained a window, later documents may contain it. This depends only on the
order of the documents.

Source: comparing windows of ids is the idea of Lee et al. 2021, arXiv:2107.06499 (exact substrings of 50 tokens).
Changed: hashes of windows instead of a suffix array, and only the held-out documents are searched for.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.word_hashes import Hashes, hash_powers, look_up, ngram_hashes
from cram.data.shards.mapped_arrays import map_arrays, map_sealed_arrays, write_sealed_arrays
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.machine.host import cores

WINDOW = 64  # ids, about 50 words: longer than quotations and titles that independent documents share
BLOCK = WINDOW // 2  # wherever 64 consecutive ids begin, they contain 32 that begin at a multiple of 32
# How many documents with a window are dropped before the window counts as boilerplate. A licence, a menu or a notice
# is in dozens of documents of a corpus; copies of one document that deduplication missed are fewer.
BOILERPLATE = 10
BORDER = -1  # follows each row where documents do not continue in the next row
BOILERPLATE_FILE = "boilerplate.safetensors"  # windows: uint64, sorted hashes of the windows that are boilerplate
MOST_THREADS = 4  # that search the finished rows; each holds some 20 MB

Found = TypeVar("Found")
Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOutIndex:
    """Hashes of the ids of held-out documents, without [CLS] and [SEP]. All arrays are sorted and without repeats.

    Attributes:
        wholes: uint64, a hash of all ids of each document.
        lengths: int64, the numbers of ids that the documents have.
        windows: uint64, a hash of each `WINDOW` consecutive ids.
        blocks: uint64, a hash of each `BLOCK` consecutive ids.
    """

    wholes: Hashes
    lengths: Ids
    windows: Hashes
    blocks: Hashes

    @classmethod
    def of(cls, documents: Iterable[npt.NDArray[np.integer]]) -> "HeldOutIndex":
        """Build the index of documents, each given by its ids; empty documents are left out."""
        nonempty = [ids.astype(np.uint64) for ids in documents if len(ids)]
        lengths = np.array([len(ids) for ids in nonempty], np.int64)
        ends = np.cumsum(lengths)
        joined = np.concatenate([*nonempty, np.empty(0, np.uint64)])

        def hash_ngrams(length: int) -> Hashes:
            hashes = [ngram_hashes(ids, length) for ids in nonempty]
            return np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))

        return cls(
            np.unique(_hash_wholes(joined, ends - lengths, ends, int(lengths.max(initial=0)))),
            np.unique(lengths),
            hash_ngrams(WINDOW),
            hash_ngrams(BLOCK),
        )

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        write_sealed_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "HeldOutIndex":
        """Map a file of `save`.

        Raises:
            CramError: the file is damaged.
        """
        return cls(**map_sealed_arrays(path)[0])

    def match_documents(self, ids: npt.NDArray[np.integer], starts: Ids, ends: Ids) -> Bools:
        """Find documents with exactly the ids of a held-out one.

        Args:
            ids: of all documents.
            starts: int64 [n]; document i is `ids[starts[i]:ends[i]]`, without [CLS] and [SEP].
            ends: int64 [n].

        Returns:
            bool [n], whether each document equals a held-out one.
        """
        equal = np.isin(ends - starts, self.lengths)
        hashes = _hash_wholes(ids, starts[equal], ends[equal], int(self.lengths.max(initial=0)))
        equal[equal] = look_up(hashes, self.wholes)[0]
        return equal

    def find_windows(self, ids: npt.NDArray[np.integer]) -> tuple[Ids, Ids]:
        """Find the windows of held-out documents in some ids.

        Returns:
            Where the windows begin in `ids`, ascending, and their indices in `windows`; both int64 [n].
        """
        # Few texts share even one block, and there are 32 times fewer blocks to look up than windows. So windows are
        # only looked up near a block that is in the index.
        values = ids.astype(np.uint64)
        blocks = np.flatnonzero(look_up(ngram_hashes(values, BLOCK, step=BLOCK), self.blocks)[0])
        begins = np.unique((blocks[:, None] * BLOCK + np.arange(-BLOCK, 1)).ravel())
        begins = begins[(begins >= 0) & (begins + WINDOW <= len(ids))]
        places, windows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for run in np.split(begins, np.flatnonzero(np.diff(begins) > 1) + 1):
            if len(run):
                hashes = ngram_hashes(values[run[0] : run[-1] + WINDOW], WINDOW)
                matches, indices = look_up(hashes, self.windows)
                places.append(run[matches])
                windows.append(indices[matches])
        return np.concatenate(places), np.concatenate(windows)


def strip_frame(ids: npt.NDArray[np.integer], special: SpecialTokens) -> npt.NDArray[np.integer]:
    """Return the ids of a document without [CLS], if the tokenizer has it, and [SEP]."""
    return ids[special.frame - 1 : -1]


@dataclass(frozen=True)
class HeldOutCheck:
    """The result of a search of all rows for held-out text, as the manifest keeps it.

    Attributes:
        documents: held-out documents that are stored.
        sequences_found: documents in the rows with exactly the ids of a held-out one.
        windows: distinct windows of the held-out documents.
        windows_found: windows in the rows that are not boilerplate.
        boilerplate_windows: windows in the rows that are boilerplate.
        boilerplate_documents: pieces of documents in the rows that contain boilerplate windows.
    """

    documents: int
    sequences_found: int
    windows: int
    windows_found: int
    boilerplate_windows: int
    boilerplate_documents: int

    @property
    def leaks(self) -> int:
        """How many sequences and windows are in the rows and must not be."""
        return self.sequences_found + self.windows_found


def check_rows(shards: ShardSet, held_out: HeldOutIndex) -> HeldOutCheck:
    """Search all rows for the ids of the stored held-out documents.

    With greedy packing a document continues in the next row, and so does the search. Best-fit packing cuts a document
    that is longer than a row into whole rows and a rest in some other row. Windows are then found within each piece but
    not across pieces, and such a document is not recognized as a whole. If the tokenizer has no token that begins a
    document, best-fit rows are searched for windows only.
    """
    special = SpecialTokens.of(load_tokenizer(shards.tokenizer_path))
    boilerplate = map_arrays(shards.folder / BOILERPLATE_FILE)[0]["windows"]
    continued = shards.manifest["settings"]["packing"] == "greedy"
    streams = _read_streams(shards, special, continued, int(held_out.lengths.max(initial=0)))
    sequences = 0
    windows_found: set[int] = set()
    boilerplate_pieces: set[int] = set()

    def search(stream: _Stream) -> tuple[list[int], list[int], int]:
        places, windows = held_out.find_windows(stream.ids)
        is_boilerplate = look_up(held_out.windows[windows], boilerplate)[0]
        pieces = stream.pieces_before + np.searchsorted(stream.ends, places[is_boilerplate])
        whole = _count_sequences(stream, held_out, special) if continued or special.cls is not None else 0
        return windows.tolist(), pieces.tolist(), whole

    for windows, pieces, whole in _map_in_threads(search, streams):
        windows_found.update(windows)
        boilerplate_pieces.update(pieces)
        sequences += whole
    is_boilerplate = look_up(held_out.windows[sorted(windows_found)], boilerplate)[0]
    return HeldOutCheck(
        documents=len(shards.held_out()),
        sequences_found=sequences,
        windows=len(held_out.windows),
        windows_found=int(np.count_nonzero(~is_boilerplate)),
        boilerplate_windows=int(np.count_nonzero(is_boilerplate)),
        boilerplate_documents=len(boilerplate_pieces),
    )


class _Stream(NamedTuple):
    """Rows one after the other.

    Attributes:
        ids: integers [ids].
        ends: int64, where pieces of documents end: at tokens that end documents, and at `BORDER`.
        pieces_before: the number of pieces that ended before this stream.
    """

    ids: npt.NDArray[np.integer]
    ends: Ids
    pieces_before: int


def _read_streams(shards: ShardSet, special: SpecialTokens, continued: bool, longest: int) -> Iterator[_Stream]:
    """Yield the rows as streams of ids.

    A document that does not end in a stream is repeated at the start of the next one.

    Args:
        shards: whose rows are read.
        special: the tokens that end documents.
        continued: whether documents continue in the next row; if not, `BORDER` follows each row.
        longest: ids of the longest held-out document.
    """
    rest: npt.NDArray[np.integer] | None = None
    pieces_before = 0
    for _, tokens, _ in shards.blocks():
        rows = tokens if continued else np.pad(tokens.astype(np.int32), ((0, 0), (0, 1)), constant_values=BORDER)
        ids = rows.ravel() if rest is None else np.concatenate([rest, rows.ravel()])
        ends = _find_ends(ids, special)
        yield _Stream(ids, ends, pieces_before)
        after_last_end = int(ends[-1]) + 1 if len(ends) else 0
        # A document longer than every held-out one cannot equal one, so its last windows suffice.
        rest_start = max(after_last_end, len(ids) - longest - 2 * WINDOW)
        rest = ids[rest_start:].copy()
        pieces_before += len(ends)


def _find_ends(ids: npt.NDArray[np.integer], special: SpecialTokens) -> Ids:
    """Where pieces of documents end; where documents continue in the next row, there is no border."""
    return np.flatnonzero((ids == special.sep) | (ids == BORDER))


def _map_in_threads(function: Callable[[_Stream], Found], streams: Iterable[_Stream]) -> Iterator[Found]:
    """Apply a function to streams, a few at once; NumPy lets other threads work while it computes."""
    threads = min(cores(), MOST_THREADS)
    waiting: deque[Future[Found]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for stream in streams:
            waiting.append(pool.submit(function, stream))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _count_sequences(stream: _Stream, held_out: HeldOutIndex, special: SpecialTokens) -> int:
    """Count the documents that begin and end in a stream and have exactly the ids of a held-out one."""
    ids, ends = stream.ids, stream.ends
    is_pad = ids == special.pad
    if is_pad.any():
        ids = ids[~is_pad]
        ends = _find_ends(ids, special)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    is_whole = ids[ends] == special.sep
    if special.cls is not None:
        is_whole &= ids[starts] == special.cls
    return int(held_out.match_documents(ids, starts[is_whole] + special.frame - 1, ends[is_whole]).sum())


def _hash_wholes(ids: npt.NDArray[np.integer], starts: Ids, ends: Ids, longest: int) -> Hashes:
    """Hash each `ids[start:end]`; none of them may be empty or longer than `longest`."""
    if not len(starts):
        return np.empty(0, np.uint64)
    lengths = ends - starts
    offsets = np.cumsum(lengths) - lengths
    positions = np.arange(int(lengths.sum())) - np.repeat(offsets, lengths)  # of each id within its document
    values = ids[positions + np.repeat(starts, lengths)].astype(np.uint64) * hash_powers(longest)[positions]
    sums = np.add.reduceat(values, offsets) + lengths.astype(np.uint64)
    return ngram_hashes(sums, 1)  # mixes the bits
