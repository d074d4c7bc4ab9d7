"""Packs documents of any length into rows of one length, and notes where each document begins.

There are two ways. `greedy` fills every row and cuts documents at the ends of rows. `best_fit` never cuts a document
that fits into a row, and pads the free space. In both, the padding of a row counts as one more document.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
PackingKind = Literal["greedy", "best_fit"]

# A larger window fills rows only a little better: on 104 M tokens of encyclopedia, books, reviews and abstracts it is
# 99.6 % at 128 (99.7 % with four times the window), 99.8 % at 512 and 1024. A state holds a window: 4 MB.
WINDOW_TOKENS = 1 << 20


class Packer(Protocol):
    """Takes documents one by one and returns rows. When the rows are taken does not change them.

    Attributes:
        pending: tokens that were added and are not in a row that was taken.
        cut: documents that are in two rows although they would fit into one.
    """

    pending: int
    cut: int

    def add(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> None:
        """Add one whole document, `[CLS] text [SEP]`."""

    def extend(self, ids: npt.NDArray[np.integer], lengths: npt.NDArray[np.int64]) -> None:
        """Add whole documents.

        Args:
            ids: of all documents, one after the other.
            lengths: int64 [documents], how many ids each document has; 0 is not a document.
        """

    def take(self) -> tuple[Array, Array]:
        """Return the rows that are complete, and forget them.

        Returns:
            Tokens and documents, both int32 [rows, seq_len]. `documents` is the 0-based index of each token's
            document within its row; a document that continues in another row has an index of its own there.
        """

    def finish(self) -> tuple[Array, Array]:
        """Return all remaining rows, padded, as `take` does. The packer is empty then and can be used again."""

    def state(self) -> dict[str, np.ndarray]:
        """Return the pending documents: `tokens` int32, `lengths` int64 of each document, and `cut` int64 [1]."""

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Continue from the state of a packer of the same kind, seq_len and pad_id."""


def make_packer(kind: PackingKind, seq_len: int, pad_id: int) -> Packer:
    """Make the packer that `data.packing` names."""
    return GreedyPacker(seq_len, pad_id) if kind == "greedy" else BestFitPacker(seq_len, pad_id)


class _Collector:
    """The base of the packers: collects copies of the documents.

    Tokens and lengths are kept in the arrays that were added, because a chunk has hundreds of documents.
    """

    def __init__(self, seq_len: int, pad_id: int) -> None:
        self._seq_len = seq_len
        self._padding = np.full(seq_len, pad_id, np.int32)
        self._tokens: list[Array] = []
        self._lengths: list[Lengths] = []
        self.pending = self.cut = 0

    def add(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> None:
        self.extend(np.asarray(ids), np.array([len(ids)], np.int64))

    def extend(self, ids: npt.NDArray[np.integer], lengths: Lengths) -> None:
        if len(ids):
            self._tokens.append(np.array(ids, np.int32))
            self._lengths.append(lengths[lengths > 0])
            self.pending += len(ids)

    def state(self) -> dict[str, np.ndarray]:
        tokens, lengths = self._pending()
        return {"tokens": tokens, "lengths": lengths, "cut": np.array([self.cut], np.int64)}

    def load(self, state: dict[str, np.ndarray]) -> None:
        tokens, lengths = state["tokens"], state["lengths"]
        self._tokens, self._lengths = ([tokens], [lengths]) if len(lengths) else ([], [])
        self.pending, self.cut = len(tokens), int(state["cut"][0])

    def _pending(self) -> tuple[Array, Lengths]:
        """Return the tokens of the pending documents, and the length of each."""
        return _join(self._tokens), np.concatenate([*self._lengths, np.empty(0, np.int64)])


class GreedyPacker(_Collector):
    """Fills every row: a document that is longer than the free space of a row continues in the next one."""

    def extend(self, ids: npt.NDArray[np.integer], lengths: Lengths) -> None:
        # Only full rows are taken, so the pending tokens modulo seq_len are the tokens in the last, open row.
        starts = (self.pending + np.cumsum(lengths) - lengths) % self._seq_len
        self.cut += int(np.count_nonzero((lengths <= self._seq_len) & (starts + lengths > self._seq_len)))
        super().extend(ids, lengths)

    def take(self) -> tuple[Array, Array]:
        stream, lengths = self._pending()
        full = len(stream) - len(stream) % self._seq_len
        rest = np.minimum(lengths, np.maximum(np.cumsum(lengths) - full, 0))  # what is left of each document
        self._tokens, self._lengths = [stream[full:].copy()], [rest[rest > 0]]
        self.pending = len(stream) - full
        return self._rows(stream[:full], _number_tokens(lengths)[:full])

    def finish(self) -> tuple[Array, Array]:
        stream, lengths = self._pending()
        padding = self._padding[: -len(stream) % self._seq_len]
        padding_numbers = np.full(len(padding), len(lengths), np.int32)
        self._tokens, self._lengths, self.pending = [], [], 0
        numbers = np.concatenate([_number_tokens(lengths), padding_numbers])
        return self._rows(np.concatenate([stream, padding]), numbers)

    def _rows(self, stream: Array, numbers: Array) -> tuple[Array, Array]:
        documents = numbers.reshape(-1, self._seq_len)
        return stream.reshape(-1, self._seq_len), documents - documents[:, :1]


class BestFitPacker(_Collector):
    """Cuts no document that fits into a row. A longer one gives whole rows, and its rest is placed like a short one.

    Rests and short documents wait in a window. When it has `WINDOW_TOKENS`, it is packed by itself; its rows are in the
    order of their first documents. Whole rows do not wait.

    Source: arXiv:2404.10830 (best-fit decreasing). Changed: documents are packed in windows, so memory is bounded.
    """

    def __init__(self, seq_len: int, pad_id: int) -> None:
        super().__init__(seq_len, pad_id)
        self._window: list[Array] = []
        self._window_tokens = 0

    def take(self) -> tuple[Array, Array]:
        return self._rows(list(self._place()))

    def finish(self) -> tuple[Array, Array]:
        return self._rows([*self._place(), *self._pack_window()])

    def load(self, state: dict[str, np.ndarray]) -> None:
        super().load(state)
        self._window, self._window_tokens = [], 0

    def _pending(self) -> tuple[Array, Lengths]:
        tokens, lengths = super()._pending()
        waiting = np.array([len(piece) for piece in self._window], np.int64)
        return _join([*self._window, tokens]), np.concatenate([waiting, lengths])

    def _place(self) -> Iterable[tuple[Array, int]]:
        """Move all documents into whole rows and the window.

        Yields:
            The pieces that fill the rows, in order, each with its index within its row.
        """
        tokens, lengths = super()._pending()
        for document in np.split(tokens, np.cumsum(lengths)[:-1]) if len(lengths) else []:
            rest = len(document) % self._seq_len
            whole = len(document) - rest
            if whole:
                yield document[:whole], 0
            if rest:
                # A copy, because a view of the rest would keep a whole book in memory.
                self._window.append(document[whole:].copy())
                self._window_tokens += rest
            if self._window_tokens >= WINDOW_TOKENS:
                yield from self._pack_window()
        self._tokens, self._lengths = [], []

    def _pack_window(self) -> Iterable[tuple[Array, int]]:
        """Pack the window and empty it; yield as `_place` does."""
        rows: dict[int, list[Array]] = {}
        row_numbers = best_fit(np.array([len(piece) for piece in self._window], np.int64), self._seq_len)
        for piece, number in zip(self._window, row_numbers, strict=True):
            rows.setdefault(number, []).append(piece)
        self._window, self._window_tokens = [], 0
        for row in rows.values():
            yield from zip(row, range(len(row)), strict=True)
            if padding := self._seq_len - sum(map(len, row)):
                yield self._padding[:padding], len(row)

    def _rows(self, pieces: list[tuple[Array, int]]) -> tuple[Array, Array]:
        self.pending = self._window_tokens
        tokens = _join([piece for piece, _ in pieces])
        lengths = np.array([len(piece) for piece, _ in pieces], np.int64)
        documents = np.repeat(np.array([index for _, index in pieces], np.int32), lengths)
        return tokens.reshape(-1, self._seq_len), documents.reshape(-1, self._seq_len)


def best_fit(lengths: npt.NDArray[np.int64], seq_len: int) -> list[int]:
    """Assign pieces to rows by best-fit decreasing.

    The longest piece comes first, and each goes into the row with the least free space that suffices. Of equal pieces
    the first in order comes first; of rows with equal free space the one that reached it last is taken.

    Args:
        lengths: tokens of each piece, 1 to seq_len.
        seq_len: tokens of a row.

    Returns:
        The number of the row of each piece; rows are numbered in the order in which they are opened.
    """
    rows_by_space: list[list[int]] = [[] for _ in range(seq_len + 1)]
    # Bit n is set if some row has exactly n tokens free: the smallest space that suffices is then one bit operation.
    spaces = 0
    row_of_piece = [0] * len(lengths)
    opened = 0
    sizes = lengths.tolist()
    for piece in np.argsort(-lengths, kind="stable").tolist():
        size = sizes[piece]
        if fitting := spaces >> size:
            space = size + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces ^= 1 << space
        else:
            space, row = seq_len, opened
            opened += 1
        row_of_piece[piece] = row
        if left := space - size:
            rows_by_space[left].append(row)
            spaces |= 1 << left
    return row_of_piece


@dataclass(frozen=True)
class Fill:
    """How well documents fill rows.

    Attributes:
        rows: the number of rows.
        share: of the positions in the rows, those that are not padding.
        cut: documents that are in two rows although they would fit into one.
    """

    rows: int
    share: float
    cut: int


def predict_fill(lengths: npt.ArrayLike, seq_len: int, kind: PackingKind) -> Fill:
    """Compute how a packer would fill rows with documents of these lengths in this order, without their tokens."""
    sizes = np.asarray(lengths, np.int64)
    tokens = int(sizes.sum())
    if kind == "greedy":
        rows = -(-tokens // seq_len)
        starts = (np.cumsum(sizes) - sizes) % seq_len
        cut = int(((sizes <= seq_len) & (starts + sizes > seq_len)).sum())
    else:
        rows = int((sizes // seq_len).sum()) + sum(
            max(best_fit(part, seq_len)) + 1 for part in _windows(sizes % seq_len)
        )
        cut = 0
    return Fill(rows, tokens / (rows * seq_len) if rows else 1.0, cut)


def _windows(rests: npt.NDArray[np.int64]) -> Iterable[npt.NDArray[np.int64]]:
    """Split the rests that are not 0 as `BestFitPacker` does: a window ends with the rest that fills it."""
    rests = rests[rests > 0]
    ends = np.cumsum(rests)
    start = 0
    while start < len(rests):
        before = ends[start] - rests[start]
        stop = int(np.searchsorted(ends, before + WINDOW_TOKENS)) + 1
        yield rests[start:stop]
        start = stop


def _number_tokens(lengths: Lengths) -> Array:
    """Return for each token the index of its document."""
    return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


def _join(documents: list[Array]) -> Array:
    return np.concatenate(documents) if documents else np.empty(0, np.int32)
