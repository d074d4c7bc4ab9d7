"""Which tokens of a row are predicted: a hash of (seed, epoch, row, position) decides, not a random state.

The same row in the same epoch gets the same slots on every machine and after every resume, and a lower rate chooses a
subset of the slots of a higher one.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

# Numbers of 8 bytes that stay in a core's cache together.
CACHED_NUMBERS = 1 << 14
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LARGEST = np.uint64(2**64 - 1)


def mix(values: Keys) -> Keys:
    """Mix the bits of each value: the finalizer of SplitMix64, uint64 in, uint64 out.

    Source: Steele, Lea and Flood, OOPSLA 2014.
    """
    values = values + _GOLDEN
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def row_keys(seed: int, epoch: npt.NDArray[np.integer], index: npt.NDArray[np.integer]) -> Keys:
    """Derive one key for each row, uint64 [rows], from the seed, the epoch and the row's number."""
    digest = hashlib.sha256(f"masks {seed}".encode()).digest()
    start = np.frombuffer(digest[:8], "<u8").astype(np.uint64)
    return mix(mix(start ^ epoch.astype(np.uint64)) ^ index.astype(np.uint64))


def choose_slots(
    maskable: npt.NDArray[np.bool_],
    keys: Keys,
    rate: float | npt.NDArray[np.float64],
    capacity: int,
    weights: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Choose the tokens of each row that are predicted: `rate` of the maskable ones, at most `capacity`.

    The number of a row is rounded up or down by the row's key, so that the rate holds on average.

    Args:
        maskable: bool [rows, seq_len].
        keys: uint64 [rows].
        rate: share of the maskable tokens, for all rows or for each, float64 [rows].
        capacity: slots of a row.
        weights: float32 [rows, seq_len], above 0: how readily each token is chosen; None for all alike.

    Returns:
        positions: int64 [rows, capacity], within the row.
        used: bool [rows, capacity]; the unused slots of a row come last.
    """
    seq_len = maskable.shape[1]
    places: Keys = mix(np.arange(1, seq_len + 1, dtype=np.uint64))
    order = np.empty((len(maskable), min(capacity, seq_len)), np.int64)
    step = max(1, CACHED_NUMBERS // seq_len)
    for start in range(0, len(maskable), step):
        part = slice(start, start + step)
        ranks = mix(keys[part, None] ^ places)
        if weights is not None:
            ranks = weigh(ranks, weights[part])
        ranks[~maskable[part]] = _LARGEST
        order[part] = smallest(ranks, capacity)
    available = maskable.sum(axis=1)
    rounding = mix(keys) / 2.0**64
    count = np.minimum(np.floor(rate * available + rounding), np.minimum(available, capacity))
    return order, np.arange(order.shape[1]) < count[:, None]


def weigh(ranks: Keys, weights: npt.NDArray[np.float32]) -> Keys:
    """Turn random ranks into ranks whose smallest ones are a weighted draw without replacement, uint64 in and out.

    A rank is an exponential number whose rate is the weight. The bits of positive floats have the order of the floats.

    Source: Efraimidis and Spirakis, Information Processing Letters 97 (2006).

    Args:
        weights: of the shape of the ranks, above 0.
    """
    uniform = (ranks >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
    return (-np.log(uniform) / weights).view(np.uint64)


def smallest(values: Keys, count: int) -> npt.NDArray[np.int64]:
    """Find the smallest values of each row: `np.argsort(values, axis=1, kind="stable")[:, :count]`, but quicker.

    Each value is cut to its upper 32 bits, its lowest bits are replaced by its column, and these numbers are sorted
    instead of columns. The order can differ from the true one only where two values of a row agree in all bits that
    are left. Such rows are sorted again.

    Args:
        values: uint64 [rows, n], n at most 2**32.
        count: how many of each row.

    Returns:
        int64 [rows, min(count, n)], columns.
    """
    n = values.shape[1]
    low = np.uint32((1 << (n - 1).bit_length()) - 1)
    marked = (values >> np.uint64(32)).astype(np.uint32)
    marked &= ~low
    marked |= np.arange(n, dtype=np.uint32)
    marked.sort(axis=1)
    places = (marked[:, :count] & low).astype(np.int64)
    tied = (marked[:, : min(count, n - 1)] ^ marked[:, 1 : count + 1]) <= low
    if tied.any():
        rows = tied.any(axis=1)
        places[rows] = np.argsort(values[rows], axis=1, kind="stable")[:, :count]
    return places
