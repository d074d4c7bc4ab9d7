"""Rows in training order, each once an epoch, read ahead by a thread."""

import queue
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.data.shards.order import OrderKind, open_order
from cram.data.shards.shards import ShardSet
from cram.errors import CramError

# Rows at random are gathered shard by shard, so a block must hold many of each; a token takes 3 to 8 bytes.
BLOCK_TOKENS = 1 << 20
BLOCKS_AHEAD = 4


@dataclass
class TrainingRows:
    """n rows of the shards; all arrays are copies and may be written to."""

    tokens: npt.NDArray[np.int32]  # [n, seq_len]
    documents: npt.NDArray[np.int32]  # [n, seq_len], index of the document within its row
    index: npt.NDArray[np.int64]  # [n], number of the row in the shards
    epoch: npt.NDArray[np.int32]  # [n]

    def __getitem__(self, part: slice) -> "TrainingRows":
        """A part of the rows, as views."""
        return TrainingRows(self.tokens[part], self.documents[part], self.index[part], self.epoch[part])


@dataclass
class _Block:
    """Rows as they are stored, in integers of any size; what of them is still to be handed out starts at `start`."""

    tokens: npt.NDArray[np.integer]
    documents: npt.NDArray[np.integer]
    index: npt.NDArray[np.int64]
    epoch: int
    start: int = 0

    @property
    def left(self) -> int:
        return len(self.index) - self.start


class Loader:
    """Hands out `epochs` passes over the shards; `state` and `resume` are exact to the row."""

    def __init__(self, shards: ShardSet, seed: int, epochs: int = 1, order: OrderKind = "shuffled"):
        self._shards = shards
        self._seed = seed
        self._order: OrderKind = order
        self.rows_total = shards.rows * epochs
        self.rows_taken = 0
        self._read_ahead()

    @property
    def rows_left(self) -> int:
        """Rows that `next` can still give."""
        return self.rows_total - self.rows_taken

    def next(self, n: int) -> TrainingRows:
        """The next n rows, across the border of an epoch if need be; CramError when fewer are left."""
        rows = self.peek(n)
        self.rows_taken += n
        self._drop(n)
        return rows

    def peek(self, n: int) -> TrainingRows:
        """The next n rows (n > 0) without moving on; CramError when fewer are left."""
        if n > self.rows_left:
            raise CramError(
                f"data.source: {n} more rows needed, {self.rows_left} of {self.rows_total} left; "
                "give more text or set data.epochs higher"
            )
        while sum(block.left for block in self._rest) < n:
            self._rest.append(self._reader.next())
        return _join(self._rest, n)

    def state(self) -> dict[str, Any]:
        """Where it stands, for JSON."""
        return {"seed": self._seed, "data": self._shards.hash, "order": self._order, "rows_taken": self.rows_taken}

    def resume(self, state: dict[str, Any]) -> None:
        """Go to where `state` was; CramError for a state of other data, another seed or another order."""
        state = {"order": "shuffled"} | state  # there was no other when checkpoints did not say
        for name, here in (("data", self._shards.hash), ("seed", self._seed), ("order", self._order)):
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
        self._rest: list[_Block] = []
        blocks = _blocks(self._shards, self._order, self._seed, self.rows_taken, self.rows_total)
        self._reader = _Reader(blocks)

    def _drop(self, n: int) -> None:
        while n:
            first = self._rest[0]
            dropped = min(n, first.left)
            first.start += dropped
            n -= dropped
            if not first.left:
                del self._rest[0]


def _blocks(shards: ShardSet, order: OrderKind, seed: int, taken: int, total: int) -> Iterator[_Block]:
    """The rows in training order from number `taken` to `total`, which ends an epoch."""
    rows = shards.rows
    size = max(1, BLOCK_TOKENS // shards.seq_len)
    numbers = None
    for epoch in range(taken // max(rows, 1), total // max(rows, 1)):
        if numbers is None or order == "shuffled":
            numbers = open_order(shards, order, seed, epoch)
        for start in range(max(0, taken - epoch * rows), rows, size):
            index = numbers[start : start + size].astype(np.int64)
            yield _Block(*shards.read(index), index, epoch)


def _join(blocks: list[_Block], n: int) -> TrainingRows:
    """The first n rows of the blocks, copied."""
    parts: list[tuple[_Block, slice]] = []
    for block in blocks:
        taken = min(n, block.left)
        parts.append((block, slice(block.start, block.start + taken)))
        n -= taken
    return TrainingRows(
        np.concatenate([block.tokens[part] for block, part in parts], dtype=np.int32),
        np.concatenate([block.documents[part] for block, part in parts], dtype=np.int32),
        np.concatenate([block.index[part] for block, part in parts]),
        np.concatenate([np.full(part.stop - part.start, block.epoch, np.int32) for block, part in parts]),
    )


class _Reader:
    """A thread that fills a bounded queue from an iterator; its errors come out of `next`.

    It ends with the reader or with the program, whichever is first: an interpreter that shuts down while a thread
    reads inside numpy aborts.
    """

    def __init__(self, blocks: Iterator[_Block]):
        self._queue: queue.Queue[_Block | BaseException] = queue.Queue(BLOCKS_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(target=_fill, args=(blocks, self._queue, stop), name="cram-loader", daemon=True)
        self.close = weakref.finalize(self, _end, thread, stop)
        thread.start()

    def next(self) -> _Block:
        block = self._queue.get()
        if isinstance(block, BaseException):
            self._queue.put(block)  # asked again, it fails again instead of waiting forever
            raise block
        return block


def _fill(blocks: Iterator[_Block], ahead: "queue.Queue[_Block | BaseException]", stop: threading.Event) -> None:
    try:
        for block in blocks:
            if not _put(block, ahead, stop):
                return
    except BaseException as error:  # raised where the rows are taken
        _put(error, ahead, stop)


def _put(item: _Block | BaseException, ahead: "queue.Queue[_Block | BaseException]", stop: threading.Event) -> bool:
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
