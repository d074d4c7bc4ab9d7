"""Rows in training order, each once an epoch, read ahead by a thread."""

import queue
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.data.shards import ShardSet
from cram.errors import CramError

BLOCK_ROWS = 256
BLOCKS_AHEAD = 16


@dataclass
class Rows:
    """n rows of the shards; all arrays are copies and may be written to."""

    tokens: npt.NDArray[np.int32]  # [n, seq_len]
    documents: npt.NDArray[np.int32]  # [n, seq_len], index of the document within its row
    index: npt.NDArray[np.int64]  # [n], number of the row in the shards
    epoch: npt.NDArray[np.int32]  # [n]

    def __getitem__(self, part: slice) -> "Rows":
        """A part of the rows, as views."""
        return Rows(self.tokens[part], self.documents[part], self.index[part], self.epoch[part])


def epoch_order(seed: int, data_hash: str, epoch: int, rows: int) -> npt.NDArray[np.int64]:
    """The order of an epoch: a permutation of `rows` numbers, a pure function of the arguments.

    RandomState, because numpy promises that its stream never changes.
    """
    digest = sha256(f"{seed} {data_hash} {epoch}".encode()).digest()
    state = np.random.RandomState(np.frombuffer(digest, "<u4"))
    return state.permutation(rows).astype(np.int64, copy=False)


class Loader:
    """Hands out `epochs` passes over the shards; `state` and `resume` are exact to the row."""

    def __init__(self, shards: ShardSet, seed: int, epochs: int = 1):
        self._shards = shards
        self._seed = seed
        self.rows_total = shards.rows * epochs
        self.rows_taken = 0
        self._read_ahead()

    @property
    def rows_left(self) -> int:
        """Rows that `next` can still give."""
        return self.rows_total - self.rows_taken

    def next(self, n: int) -> Rows:
        """The next n rows, across the border of an epoch if need be; CramError when fewer are left."""
        rows = self.peek(n)
        self.rows_taken += n
        self._drop(n)
        return rows

    def peek(self, n: int) -> Rows:
        """The next n rows (n > 0) without moving on; CramError when fewer are left."""
        if n > self.rows_left:
            raise CramError(
                f"data.source: {n} more rows needed, {self.rows_left} of {self.rows_total} left; "
                "give more text or set data.epochs higher"
            )
        while sum(len(block.index) for block in self._rest) < n:
            self._rest.append(self._reader.next())
        return _join(self._rest)[:n]

    def state(self) -> dict[str, Any]:
        """Where it stands, for JSON."""
        return {"seed": self._seed, "data": self._shards.hash, "rows_taken": self.rows_taken}

    def resume(self, state: dict[str, Any]) -> None:
        """Go to where `state` was; CramError for a state of other data or another seed."""
        for name, here in (("data", self._shards.hash), ("seed", self._seed)):
            if state[name] != here:
                raise CramError(f"the checkpoint was trained with {name} {state[name]}, not {here}; start another run")
        if state["rows_taken"] > self.rows_total:
            raise CramError(
                f"data.epochs: the checkpoint has taken {state['rows_taken']} rows, "
                f"these epochs hold {self.rows_total}; set data.epochs higher"
            )
        self.close()
        self.rows_taken = state["rows_taken"]
        self._read_ahead()

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.close()

    def _read_ahead(self) -> None:
        self._rest: list[Rows] = []
        self._reader = _Reader(_blocks(self._shards, self._seed, self.rows_taken, self.rows_total))

    def _drop(self, n: int) -> None:
        while n:
            first = self._rest[0]
            size = len(first.index)
            self._rest[:1] = [] if n >= size else [first[n:]]
            n -= min(n, size)


def _blocks(shards: ShardSet, seed: int, taken: int, total: int) -> Iterator[Rows]:
    """The rows in training order from number `taken` to `total`, which ends an epoch."""
    rows = shards.rows
    for epoch in range(taken // max(rows, 1), total // max(rows, 1)):
        order = epoch_order(seed, shards.hash, epoch, rows)
        for start in range(max(0, taken - epoch * rows), rows, BLOCK_ROWS):
            index = order[start : start + BLOCK_ROWS]
            tokens, documents = shards.read(index)
            yield Rows(tokens, documents, index, np.full(len(index), epoch, np.int32))


class _Reader:
    """A thread that fills a bounded queue from an iterator; its errors come out of `next`.

    It ends with the reader or with the program, whichever is first: an interpreter that shuts down while a thread
    reads inside numpy aborts.
    """

    def __init__(self, blocks: Iterator[Rows]):
        self._queue: queue.Queue[Rows | BaseException] = queue.Queue(BLOCKS_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(target=_fill, args=(blocks, self._queue, stop), name="cram-loader", daemon=True)
        self.close = weakref.finalize(self, _end, thread, stop)
        thread.start()

    def next(self) -> Rows:
        block = self._queue.get()
        if isinstance(block, BaseException):
            self._queue.put(block)  # asked again, it fails again instead of waiting forever
            raise block
        return block


def _fill(blocks: Iterator[Rows], ahead: "queue.Queue[Rows | BaseException]", stop: threading.Event) -> None:
    try:
        for block in blocks:
            if not _put(block, ahead, stop):
                return
    except BaseException as error:  # raised where the rows are taken
        _put(error, ahead, stop)


def _put(item: Rows | BaseException, ahead: "queue.Queue[Rows | BaseException]", stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            ahead.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _end(thread: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    thread.join()


def _join(blocks: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([block.tokens for block in blocks]),
        np.concatenate([block.documents for block in blocks]),
        np.concatenate([block.index for block in blocks]),
        np.concatenate([block.epoch for block in blocks]),
    )
