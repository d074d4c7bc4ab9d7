"""The orders in which rows can be trained, as files beside the shards: one set of shards serves all of them.

orders/likely_first.safetensors           order uint32 [rows]: the numbers of the rows
orders/unlikely_first.safetensors
orders/shuffled-seed0-epoch0.safetensors  one for each seed and epoch that was trained
orders/checksums.json                     the sha256 of each

The sorted ones are Cramming's unigram curriculum: rows by the mean of log2((count + 1) / (total + vocabulary)) over
their tokens. Source: arXiv:2212.14034 and github.com/JonasGeiping/cramming, changed: `likely_first` is what the paper
says and `unlikely_first` what its code does; padding is left out of mean and counts; equal rows stay in their order,
either way; the sums are of whole numbers, so that every machine gives the same order.
"""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cram.data.shards.mapped_arrays import map_arrays
from cram.data.shards.shards import ShardSet
from cram.data.tokenizer import SpecialTokens, load_tokenizer
from cram.errors import CramError
from cram.files.atomic import to_json, write_atomic
from cram.files.lock import wait_for_lock
from cram.files.sealed import add_to_checksums, is_intact

OrderKind = Literal["shuffled", "likely_first", "unlikely_first"]
Order = npt.NDArray[np.uint32]

SORTED: tuple[OrderKind, ...] = ("likely_first", "unlikely_first")
FOLDER, ARRAY = "orders", "order"
CHUNK_TOKENS = 1 << 20
TOKEN_BITS, ROW_BITS = 20, 26  # binary places of a token's surprisal, below 64, and of a row's mean
_warned: set[Path] = set()


def open_order(shards: ShardSet, kind: OrderKind, seed: int, epoch: int) -> Order:
    """The numbers of all rows in the order of an epoch: uint32 [rows], a memory map or an array.

    Read from its file; where none is there, or one that is damaged or of other shards, it is made and written. Where
    it cannot be written the order is kept in memory, with a warning.
    """
    path = _path(shards, kind, seed, epoch)
    order = _read(path, shards)
    if order is None:
        file = _make(path, shards, kind, seed, epoch)
        try:
            _write(path, file)
            order = map_arrays(path)[0][ARRAY]
        except (OSError, CramError) as error:
            _warn(path.parent, error)
            order = file[len(file) - 4 * shards.rows :].view(np.uint32)
    return order


def write_orders(shards: ShardSet) -> None:
    """Write the orders that serve every seed and epoch, where they are missing; CramError when the disk is full."""
    for kind in SORTED:
        path = _path(shards, kind, 0, 0)
        if _read(path, shards) is None:
            _write(path, _make(path, shards, kind, 0, 0))


def epoch_order(seed: int, data_hash: str, epoch: int, rows: int) -> Order:
    """The shuffled order of an epoch: a permutation of `rows` numbers, a pure function of the arguments."""
    order = np.empty(rows, np.uint32)
    _shuffle(order, seed, data_hash, epoch)
    return order


def _path(shards: ShardSet, kind: OrderKind, seed: int, epoch: int) -> Path:
    name = kind if kind in SORTED else f"{kind}-seed{seed}-epoch{epoch}"
    return shards.folder / FOLDER / f"{name}.safetensors"


def _read(path: Path, shards: ShardSet) -> Order | None:
    """The order that a file holds; None for none, for one of other shards, and for a damaged one."""
    try:
        if not is_intact(path.parent, path.name):
            return None
        arrays, metadata = map_arrays(path)
        order = arrays[ARRAY]
    except (OSError, CramError, ValueError, KeyError):
        return None
    return order if order.shape == (shards.rows,) and metadata == _metadata(path, shards) else None


def _make(path: Path, shards: ShardSet, kind: OrderKind, seed: int, epoch: int) -> npt.NDArray[np.uint8]:
    """A file as bytes. It is laid out first and the order made in it: of 100 million rows there is no second copy."""
    rows = shards.rows
    header = _header(rows, _metadata(path, shards))
    start = len(header)
    space = np.empty(start + 8 * rows, np.uint8)  # sorting takes twice what the order does
    if kind == "shuffled":
        _shuffle(space[start : start + 4 * rows].view(np.uint32), seed, shards.hash, epoch)
    else:
        _sort(space[start:].view(np.uint64), shards, kind)
    file = space[: start + 4 * rows]
    file[:start] = np.frombuffer(header, np.uint8)
    return file


def _write(path: Path, file: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    with wait_for_lock(path.parent / ".lock"):  # two runs that start together write the same file
        write_atomic(path, file.data)
        add_to_checksums(path.parent, path.name)


def _metadata(path: Path, shards: ShardSet) -> dict[str, str]:
    return {"order": path.stem, "data": shards.hash}


def _header(rows: int, metadata: dict[str, str]) -> bytes:
    """The head of a safetensors file, a multiple of 8 bytes: the library would want the whole order as bytes."""
    entry = {"dtype": "U32", "shape": [rows], "data_offsets": [0, 4 * rows]}
    text = to_json({"__metadata__": metadata, ARRAY: entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _shuffle(order: Order, seed: int, data_hash: str, epoch: int) -> None:
    """Fill `order` with what `RandomState.permutation` gives, in half its memory.

    RandomState, because numpy promises that its stream never changes; a shuffle draws the same for every dtype.
    """
    for start in range(0, len(order), CHUNK_TOKENS):
        stop = min(start + CHUNK_TOKENS, len(order))
        order[start:stop] = np.arange(start, stop)
    digest = hashlib.sha256(f"{seed} {data_hash} {epoch}".encode()).digest()
    np.random.RandomState(np.frombuffer(digest, "<u4")).shuffle(order)


def _sort(space: npt.NDArray[np.uint64], shards: ShardSet, kind: OrderKind) -> None:
    """Sort (score, row) as one number each, and put the rows into the first half of the space."""
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
    for start in range(0, shards.rows, CHUNK_TOKENS):
        stop = min(start + CHUNK_TOKENS, shards.rows)
        numbers[start:stop] = numbers[2 * start : 2 * stop : 2]


def _surprisal(shards: ShardSet) -> npt.NDArray[np.uint32]:
    """-log2 of each token's share, in 1 / 2**TOKEN_BITS, at least 1; 0 for padding alone."""
    counts = shards.token_counts()
    share = (counts + 1) / (counts.sum() + shards.vocab_size)
    table = np.maximum(np.rint(-np.log2(share) * (1 << TOKEN_BITS)), 1).astype(np.uint32)
    table[SpecialTokens.of(load_tokenizer(shards.tokenizer_path)).pad] = 0
    return table


def _mean(table: npt.NDArray[np.uint32], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """The mean over each row's tokens, in 1 / 2**ROW_BITS, below 2**32; 0 for a row of padding."""
    values = np.take(table, tokens)
    sums = values.sum(axis=1, dtype=np.uint64)
    there = np.count_nonzero(values, axis=1).astype(np.uint64)
    return (sums << np.uint64(ROW_BITS - TOKEN_BITS)) // np.maximum(there, np.uint64(1))


def _warn(folder: Path, error: Exception) -> None:
    if folder not in _warned:
        _warned.add(folder)
        print(f"warning: {folder} cannot be written, so orders of rows are kept in memory: {error}", flush=True)
