"""Hands out the rows in training order, each once in an epoch; a thread reads ahead."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.data.shards.epochs import EpochOrders, count_epoch_rows
from cram.data.shards.order import OrderKind
from cram.data.shards.shards import ShardSet
from cram.errors import CramError

# The rows of a block are gathered shard by shard, so a block must hold many rows of each. A token takes 3 to 8 bytes.
BLOCK_TOKENS = 1 << 20
BLOCKS_AHEAD = 4


@dataclass
class TrainingRows:
    """n rows of the shards. All arrays are copies, so they may be written to.

    Attributes:
        tokens: int32 [n, seq_len].
        documents: int32 [n, seq_len], the index of each token's document within its row.
        index: int64 [n], the number of each row in the shards.
        epoch: int32 [n], the epoch in which each row was taken.
    """

    tokens: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    index: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int32]

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> "TrainingRows":
        """Some of the rows: views for a slice, copies for an array of places."""
        return TrainingRows(self.tokens[rows], self.documents[rows], self.index[rows], self.epoch[rows])

    @staticmethod
    def join(parts: "Sequence[TrainingRows]") -> "TrainingRows":
        """Join rows, one part behind the other."""
        return TrainingRows(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(TrainingRows))
        )


@dataclass
class _RowBlock:
    """Consecutive rows of the training order, with the dtypes of the shards; rows before `start` were handed out."""

    tokens: npt.NDArray[np.integer]
    documents: npt.NDArray[np.integer]
    index: npt.NDArray[np.int64]
    epoch: int
    start: int = 0

    @property
    def rows_left(self) -> int:
        return len(self.index) - self.start


class Loader:
    """Hands out the rows of `epochs` passes over the shards; `state` and `resume` are exact to the row.

    Args:
        shards: where the rows are.
        seed: of the shuffled orders.
        epochs: passes over the shards; every row is taken once in each.
        order: `data.order`.
        subset_tokens: `data.subset_tokens`.

    Attributes:
        epoch_rows: rows of an epoch.
    """

    def __init__(
        self,
        shards: ShardSet,
        seed: int,
        epochs: int = 1,
        order: OrderKind = "shuffled",
        subset_tokens: int | None = None,
    ) -> None:
        self._shards = shards
        self._seed = seed
        self._order: OrderKind = order
        self.epoch_rows = count_epoch_rows(shards, subset_tokens)
        self.rows_total = self.epoch_rows * epochs
        self.rows_taken = 0
        self._kept: npt.NDArray[np.bool_] | None = None
        self._choose: Callable[[int, int, float], npt.NDArray[np.int64]] | None = None
        self._read_ahead()

    @property
    def rows_left(self) -> int:
        """The number of rows that `next` can still return."""
        return self.rows_total - self.rows_taken

    def next(self, n: int, progress: float = 0.0, places: npt.NDArray[np.int64] | None = None) -> TrainingRows:
        """Return the next n rows, which may belong to two epochs, and move on.

        Args:
            progress: of the update, for a function given to `draw`.
            places: among the n rows, in rising order, of those to return; None for all. The others are not copied.

        Raises:
            CramError: fewer than n rows are left.
        """
        if self._choose:
            numbers = self._choose(self.rows_taken, n, progress)
            chosen = np.arange(n) if places is None else places
            rows = self.read(numbers[chosen])
            rows.epoch[:] = self.rows_taken + chosen
        else:
            rows = self.peek(n, places)
            self._drop(n)
        self.rows_taken += n
        return rows

    def numbers(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the rows of an epoch, in rising order."""
        return np.sort(EpochOrders(self._shards, "shuffled", self._seed, self.epoch_rows, self._kept).epoch(0)).astype(
            np.int64
        )

    def ranked(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the rows of an epoch, the likeliest first, as `data.order=likely_first` sorts them."""
        return (
            EpochOrders(self._shards, "likely_first", self._seed, self.epoch_rows, self._kept).epoch(0).astype(np.int64)
        )

    def read(self, numbers: npt.NDArray[np.int64], epoch: int = 0) -> TrainingRows:
        """Return rows by their numbers; they do not count as taken."""
        tokens, documents = (part.astype(np.int32) for part in self._shards.read(numbers))
        return self.restore(tokens, documents, numbers.astype(np.int64), np.full(len(numbers), epoch, np.int32))

    @staticmethod
    def restore(
        tokens: npt.NDArray[np.int32],
        documents: npt.NDArray[np.int32],
        index: npt.NDArray[np.int64],
        epoch: npt.NDArray[np.int32],
    ) -> TrainingRows:
        """Make rows of their arrays."""
        return TrainingRows(tokens, documents, index, epoch)

    def keep(self, numbers: npt.NDArray[np.int64]) -> None:
        """Return only rows with these numbers from now on, in the order that they had, each once an epoch."""
        epochs = self.rows_total // self.epoch_rows
        self._kept = np.zeros(self._shards.rows, np.bool_)
        self._kept[numbers] = True
        self.epoch_rows = len(numbers)
        self.rows_total = epochs * self.epoch_rows
        self.close()
        self._read_ahead()

    def draw(self, choose: Callable[[int, int, float], npt.NDArray[np.int64]]) -> None:
        """Let a function choose the rows from now on, which may give a row more than once.

        The epoch of a row is then the number of rows taken before it, so that other tokens are hidden each time.

        Args:
            choose: returns the numbers of rows, from the rows taken so far, how many are wanted, and progress.
        """
        self._choose = choose

    def peek(self, n: int, places: npt.NDArray[np.int64] | None = None) -> TrainingRows:
        """Return the next n rows (n > 0), or those at some places among them, without moving on.

        Raises:
            CramError: fewer than n rows are left.
        """
        if n > self.rows_left:
            raise CramError(
                f"data.source: {n} more rows needed, {self.rows_left} of {self.rows_total} left; "
                "give more text or set data.epochs higher."
            )
        while sum(block.rows_left for block in self._blocks) < n:
            self._blocks.append(self._reader.next())
        return _join(self._blocks, n, places)

    def state(self) -> dict[str, Any]:
        """Return the position in the training order and what it belongs to, for JSON."""
        return {"seed": self._seed, "data": self._shards.hash, "order": self._order, "rows_taken": self.rows_taken}

    def resume(self, state: dict[str, Any]) -> None:
        """Move to the position of a `state`.

        Raises:
            CramError: the state belongs to other data, another seed or another order, or to more epochs.
        """
        state = {"order": "shuffled"} | state  # checkpoints without an order are from when this was the only one
        for name, value in (("data", self._shards.hash), ("seed", self._seed), ("order", self._order)):
            if state[name] != value:
                raise CramError(f"the checkpoint has {name} {state[name]}, not {value}; start another run.")
        if state["rows_taken"] > self.rows_total:
            raise CramError(
                f"data.epochs: the checkpoint has taken {state['rows_taken']} rows, "
                f"these epochs hold {self.rows_total}; set data.epochs higher."
            )
        self.close()
        self.rows_taken = state["rows_taken"]
        self._read_ahead()

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.close()

    def _read_ahead(self) -> None:
        self._blocks: list[_RowBlock] = []  # read, and not handed out completely
        orders = EpochOrders(self._shards, self._order, self._seed, self.epoch_rows, self._kept)
        blocks = _read_blocks(self._shards, orders, self.rows_taken, self.rows_total)
        self._reader = _BackgroundReader(blocks)

    def _drop(self, n: int) -> None:
        while n:
            first = self._blocks[0]
            dropped = min(n, first.rows_left)
            first.start += dropped
            n -= dropped
            if not first.rows_left:
                del self._blocks[0]


def _read_blocks(shards: ShardSet, orders: EpochOrders, taken: int, total: int) -> Iterator[_RowBlock]:
    """Read the rows in training order from position `taken` to `total`, which is the end of an epoch."""
    rows = orders.rows
    size = max(1, BLOCK_TOKENS // shards.seq_len)
    for epoch in range(taken // max(rows, 1), total // max(rows, 1)):
        numbers = orders.epoch(epoch)
        for start in range(max(0, taken - epoch * rows), rows, size):
            index = numbers[start : start + size].astype(np.int64)
            yield _RowBlock(*shards.read(index), index, epoch)


def _join(blocks: list[_RowBlock], n: int, places: npt.NDArray[np.int64] | None = None) -> TrainingRows:
    """Copy the first n rows that the blocks have left, or those at some places among them."""
    parts: list[tuple[_RowBlock, slice | npt.NDArray[np.int64]]] = []
    begin = 0
    for block in blocks:
        end = min(n, begin + block.rows_left)
        if places is None:
            parts.append((block, slice(block.start, block.start + end - begin)))
        else:
            inside = places[np.searchsorted(places, begin) : np.searchsorted(places, end)]
            parts.append((block, inside - begin + block.start))
        begin = end
    return TrainingRows(
        np.concatenate([block.tokens[rows] for block, rows in parts], dtype=np.int32),
        np.concatenate([block.documents[rows] for block, rows in parts], dtype=np.int32),
        np.concatenate([block.index[rows] for block, rows in parts]),
        np.concatenate([np.full(len(block.index[rows]), block.epoch, np.int32) for block, rows in parts]),
    )


class _BackgroundReader:
    """A thread that fills a bounded queue from an iterator; errors of the iterator are raised by `next`.

    The thread ends with this object or with the program, whichever is first. It must not outlive them: an interpreter
    that shuts down while a thread reads inside numpy aborts.
    """

    def __init__(self, blocks: Iterator[_RowBlock]) -> None:
        self._queue: queue.Queue[_RowBlock | BaseException] = queue.Queue(BLOCKS_AHEAD)
        stop = threading.Event()
        thread = threading.Thread(target=_fill, args=(blocks, self._queue, stop), name="cram-loader", daemon=True)
        self.close = weakref.finalize(self, _end, thread, stop)
        thread.start()

    def next(self) -> _RowBlock:
        block = self._queue.get()
        if isinstance(block, BaseException):
            self._queue.put(block)  # another call of `next` raises it again instead of waiting forever
            raise block
        return block


def _fill(blocks: Iterator[_RowBlock], ahead: "queue.Queue[_RowBlock | BaseException]", stop: threading.Event) -> None:
    try:
        for block in blocks:
            if not _put(block, ahead, stop):
                return
    except BaseException as error:  # `next` raises it in the thread that takes the rows
        _put(error, ahead, stop)


def _put(
    item: _RowBlock | BaseException, ahead: "queue.Queue[_RowBlock | BaseException]", stop: threading.Event
) -> bool:
    """Wait until the queue has room; False if it was told to stop before."""
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
