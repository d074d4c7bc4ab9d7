"""The orders in which rows can be trained, as files beside the shards, so one set of shards serves all orders.

orders/likely_first.safetensors           order uint32 [rows]: the numbers of the rows
orders/unlikely_first.safetensors         the same, least likely rows first
orders/shuffled-seed0-epoch0.safetensors  one for each seed and epoch that was trained
orders/checksums.json                     the sha256 of each file

The two sorted orders are Cramming's unigram curriculum: rows are sorted by the mean over their tokens of
log2((count + 1) / (total + vocab_size)).

Source: arXiv:2212.14034 and github.com/JonasGeiping/cramming. Changed: `likely_first` is what the paper says,
`unlikely_first` what its code does; padding counts neither in the mean nor in the counts; equal rows keep their order
in both; sums are of integers, so every machine computes the same order.
"""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cram.data.shards.mapped_arrays import map_arrays
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import to_json, write_atomic
from cram.files.lock import wait_for_lock
from cram.files.sealed import add_to_checksums, is_intact

OrderKind = Literal["shuffled", "likely_first", "unlikely_first"]
Order = npt.NDArray[np.uint32]

SORTED: tuple[OrderKind, ...] = ("likely_first", "unlikely_first")
FOLDER, ARRAY = "orders", "order"
NUMBERS_AT_ONCE = 1 << 20  # row numbers that are handled at once, so that no second array of all is needed
# Fraction bits of a token's surprisal and of a row's mean. A mean is below 64, so 6 + 26 bits fit a uint32.
TOKEN_BITS, ROW_BITS = 20, 26
_warned_folders: set[Path] = set()


def open_order(shards: ShardSet, kind: OrderKind, seed: int, epoch: int) -> Order:
    """Return the numbers of all rows in the order of an epoch: uint32 [rows], a memory map or an array.

    The order is read from its file. If the file is missing, damaged or belongs to other shards, the order is computed
    and written. If it cannot be written, it is kept in memory, and a warning is printed once.

    Args:
        shards: whose rows are ordered.
        kind: `data.order`.
        seed: of the run; sorted orders ignore it.
        epoch: counted from 0; sorted orders ignore it.
    """
    path = _path(shards, kind, seed, epoch)
    order = _read(path, shards)
    if order is None:
        file = _build_file(path, shards, kind, seed, epoch)
        try:
            _write(path, file)
            order = map_arrays(path)[0][ARRAY]
        except (OSError, CramError) as error:
            _warn_once(path.parent, error)
            order = file[len(file) - 4 * shards.rows :].view(np.uint32)
    return order


def write_orders(shards: ShardSet) -> None:
    """Write the two sorted orders, which serve every seed and epoch, unless they exist.

    Raises:
        CramError: the disk is full.
    """
    for kind in SORTED:
        path = _path(shards, kind, 0, 0)
        if _read(path, shards) is None:
            _write(path, _build_file(path, shards, kind, 0, 0))


def epoch_order(seed: int, data_hash: str, epoch: int, rows: int) -> Order:
    """Return the shuffled order of an epoch: a permutation of the numbers below `rows`.

    It is a function of the arguments alone.
    """
    order = np.empty(rows, np.uint32)
    _shuffle(order, seed, data_hash, epoch)
    return order


def _path(shards: ShardSet, kind: OrderKind, seed: int, epoch: int) -> Path:
    name = kind if kind in SORTED else f"{kind}-seed{seed}-epoch{epoch}"
    return shards.folder / FOLDER / f"{name}.safetensors"


def _read(path: Path, shards: ShardSet) -> Order | None:
    """The order in a file; None if the file is missing, damaged or belongs to other shards."""
    try:
        if not is_intact(path.parent, path.name):
            return None
        arrays, metadata = map_arrays(path)
        order = arrays[ARRAY]
    except (OSError, CramError, ValueError, KeyError):
        return None
    return order if order.shape == (shards.rows,) and metadata == _metadata(path, shards) else None


def _build_file(path: Path, shards: ShardSet, kind: OrderKind, seed: int, epoch: int) -> npt.NDArray[np.uint8]:
    """The bytes of an order's file.

    The order is computed inside the bytes of the file, so 100 million rows are not in memory twice.
    """
    rows = shards.rows
    header = _header(rows, _metadata(path, shards))
    start = len(header)
    space = np.empty(start + 8 * rows, np.uint8)  # sorting needs 8 bytes a row, the order keeps 4 of them
    if kind == "shuffled":
        _shuffle(space[start : start + 4 * rows].view(np.uint32), seed, shards.hash, epoch)
    else:
        _sort(space[start:].view(np.uint64), shards, kind)
    file = space[: start + 4 * rows]
    file[:start] = np.frombuffer(header, np.uint8)
    return file


def _write(path: Path, file: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    with wait_for_lock(path.parent / ".lock"):  # two runs that start at the same time write the same file
        write_atomic(path, file.data)
        add_to_checksums(path.parent, path.name)


def _metadata(path: Path, shards: ShardSet) -> dict[str, str]:
    return {"order": path.stem, "data": shards.hash}


def _header(rows: int, metadata: dict[str, str]) -> bytes:
    """The header of a safetensors file, padded to a multiple of 8 bytes.

    It is written here because the library would need the whole order as one bytes object.
    """
    entry = {"dtype": "U32", "shape": [rows], "data_offsets": [0, 4 * rows]}
    text = to_json({"__metadata__": metadata, ARRAY: entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _shuffle(order: Order, seed: int, data_hash: str, epoch: int) -> None:
    """Fill `order` with the result of `RandomState.permutation`, in half of its memory.

    RandomState, because numpy promises that its stream never changes. A shuffle draws the same numbers for every dtype.
    """
    for start in range(0, len(order), NUMBERS_AT_ONCE):
        stop = min(start + NUMBERS_AT_ONCE, len(order))
        order[start:stop] = np.arange(start, stop)
    digest = hashlib.sha256(f"{seed} {data_hash} {epoch}".encode()).digest()
    np.random.RandomState(np.frombuffer(digest, "<u4")).shuffle(order)


def _sort(space: npt.NDArray[np.uint64], shards: ShardSet, kind: OrderKind) -> None:
    """Sort the rows by score and leave their numbers, uint32, in the first half of `space`.

    Score and row number are packed into one uint64, so that one sort in place orders the rows and breaks ties.
    """
    table = _surprisal(shards)
    start = 0
    for _, tokens, _ in shards.blocks():
        rows = np.arange(start, start := start + len(tokens))
        scores = _mean(table, tokens)
        if kind == "unlikely_first":
            scores = np.uint64(2**32 - 1) - scores
        space[rows] = scores << np.uint64(32) | rows.astype(np.uint64)
    space.sort()
    numbers = space.view(np.uint32)
    for start in range(0, shards.rows, NUMBERS_AT_ONCE):
        stop = min(start + NUMBERS_AT_ONCE, shards.rows)
        numbers[start:stop] = numbers[2 * start : 2 * stop : 2]


def _surprisal(shards: ShardSet) -> npt.NDArray[np.uint32]:
    """-log2 of each token's share of all tokens, as a multiple of 2**-TOKEN_BITS: uint32 [vocab_size].

    Padding has 0. All others have at least 1, so that padding can be told from them.
    """
    counts = shards.token_counts()
    shares = (counts + 1) / (counts.sum() + shards.vocab_size)
    table: npt.NDArray[np.uint32] = np.maximum(np.rint(-np.log2(shares) * (1 << TOKEN_BITS)), 1).astype(np.uint32)
    table[SpecialTokens.of(load_tokenizer(shards.tokenizer_path)).pad] = 0
    return table


def _mean(table: npt.NDArray[np.uint32], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """The mean surprisal of each row's tokens, as a multiple of 2**-ROW_BITS: uint64 [rows], below 2**32.

    A row of nothing but padding has 0.
    """
    values = np.take(table, tokens)
    sums: npt.NDArray[np.uint64] = values.sum(axis=1, dtype=np.uint64)
    counts = np.count_nonzero(values, axis=1).astype(np.uint64)
    means: npt.NDArray[np.uint64] = (sums << np.uint64(ROW_BITS - TOKEN_BITS)) // np.maximum(counts, np.uint64(1))
    return means


def _warn_once(folder: Path, error: Exception) -> None:
    if folder not in _warned_folders:
        _warned_folders.add(folder)
        print(f"warning: {folder} cannot be written, so orders of rows are kept in memory: {error}", flush=True)
