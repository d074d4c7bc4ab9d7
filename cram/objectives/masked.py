"""Masked language modelling with a fixed number of predicted slots a row and no random state.

Which tokens are hidden is a hash of (seed, epoch, row, position): the same row in the same epoch
gets the same masks on every machine and after every resume, and a lower rate hides a subset.

Source: arXiv:1810.04805 (masked LM), arXiv:1907.11692 (masks drawn anew each epoch), arXiv:2305.15096
(a rate that falls over training), arXiv:2104.07705 (predict only hidden positions); changed: a fixed
capacity of slots, so that shapes are static while the rate falls.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from cram.config.training import ObjectiveConfig
from cram.optim.schedule import linear

IGNORED = -100
# Without static shapes the number of slots still comes in steps: libraries prepare and keep a matrix product for
# each shape, and a new one at each batch costs time and gigabytes.
SLOT_MULTIPLE = 64
CACHED = 1 << 14  # numbers of 8 bytes at once that stay in a core's cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LAST = np.uint64(2**64 - 1)
_REPLACE = np.uint64(0x94D049BB133111EB)


class Rows(Protocol):
    """What the objective needs of the loader's rows."""

    tokens: np.ndarray
    documents: np.ndarray
    index: np.ndarray
    epoch: np.ndarray


@dataclass(frozen=True)
class MaskedBatch:
    """One micro-batch, on the host or a device.

    inputs: int64 [rows, seq_len], masked. documents: int32 [rows, seq_len].
    slots: int64 [slots], flat positions. labels: int64 [slots], IGNORED where a slot is unused.
    predicted: how many labels count.
    """

    inputs: torch.Tensor
    documents: torch.Tensor
    slots: torch.Tensor
    labels: torch.Tensor
    predicted: int

    def to(self, device: torch.device) -> "MaskedBatch":
        """The same batch on a device, without waiting for the copy."""
        if device.type == "cpu":
            return self
        inputs, documents, slots, labels = (
            tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.inputs, self.documents, self.slots, self.labels)
        )
        return MaskedBatch(inputs, documents, slots, labels, self.predicted)


def mix(values: np.ndarray) -> np.ndarray:
    """Finalizer of SplitMix64: uint64 array in, well-mixed uint64 array out, elementwise.

    Source: Steele, Lea and Flood, OOPSLA 2014.
    """
    values = values + _GOLDEN
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def row_keys(seed: int, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
    """uint64 [rows]: a key for each (seed, epoch, row)."""
    digest = hashlib.sha256(f"masks {seed}".encode()).digest()
    start = np.frombuffer(digest[:8], "<u8")
    return mix(mix(start ^ epoch.astype(np.uint64)) ^ index.astype(np.uint64))


def choose_slots(maskable: np.ndarray, keys: np.ndarray, rate: float, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose which tokens of each row are predicted: `rate` of the maskable ones, at most `capacity`.

    The share of a row is rounded up or down at random (by its key), so that the rate holds on average.

    Args:
        maskable: bool [rows, seq_len].
        keys: uint64 [rows].
    Returns:
        positions int64 [rows, capacity] within the row, and used bool [rows, capacity].
    """
    seq_len = maskable.shape[1]
    places = mix(np.arange(1, seq_len + 1, dtype=np.uint64))
    order = np.empty((len(maskable), min(capacity, seq_len)), np.int64)
    step = max(1, CACHED // seq_len)
    for start in range(0, len(maskable), step):
        part = slice(start, start + step)
        ranks = mix(keys[part, None] ^ places)
        ranks[~maskable[part]] = _LAST
        order[part] = smallest(ranks, capacity)
    there = maskable.sum(axis=1)
    rounding = mix(keys) / 2.0**64
    count = np.minimum(np.floor(rate * there + rounding), np.minimum(there, capacity))
    return order, np.arange(order.shape[1]) < count[:, None]


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the smallest values of each row: `np.argsort(values, axis=1, kind="stable")[:, :count]`, but quicker.

    The place of a value is put where its lower bits were, and these numbers are sorted instead of places. It can
    come out otherwise only where two values of a row have the same upper bits: such rows are sorted again.

    Args:
        values: uint64 [rows, n], n at most 2**32.
    Returns:
        int64 [rows, min(count, n)].
    """
    n = values.shape[1]
    low = np.uint32((1 << (n - 1).bit_length()) - 1)
    marked = (values >> np.uint64(32)).astype(np.uint32)
    marked &= ~low
    marked |= np.arange(n, dtype=np.uint32)
    marked.sort(axis=1)
    places = (marked[:, :count] & low).astype(np.int64)
    alike = (marked[:, : min(count, n - 1)] ^ marked[:, 1 : count + 1]) <= low
    if alike.any():
        again = alike.any(axis=1)
        places[again] = np.argsort(values[again], axis=1, kind="stable")[:, :count]
    return places


@dataclass(frozen=True)
class Replacement:
    """What is shown instead of hidden tokens: [MASK], a random ordinary token, or the token itself.

    mask_share, random_share: shares shown as [MASK] and as one of `ordinary`, int64 ids; the rest is shown as it is.

    Source: arXiv:1810.04805 section 3.1.
    """

    mask_id: int
    ordinary: np.ndarray
    mask_share: float
    random_share: float

    def show(self, tokens: np.ndarray, slots: np.ndarray, keys: np.ndarray, seq_len: int) -> np.ndarray | int:
        """Ids to put at the flat positions `slots`, int64 (n), where `tokens` (n) are; keys: uint64, one a row."""
        if self.mask_share == 1.0:
            return self.mask_id
        bits = mix(keys[slots // seq_len] ^ mix(_REPLACE ^ (slots % seq_len).astype(np.uint64)))
        draw = bits / 2.0**64
        random = self.ordinary[mix(bits) % np.uint64(len(self.ordinary))]
        as_random = draw < self.mask_share + self.random_share
        return np.where(draw < self.mask_share, self.mask_id, np.where(as_random, random, tokens))


class MaskedObjective:
    """Turns packed rows into masked batches and asks the model for the hidden tokens.

    Args:
        config: rates and the replacement rule.
        special: ids that are never hidden nor put in as random tokens (padding included).
        mask_id: id of [MASK].
        static_shapes: keep all unused slots, so that every batch has the same shape. A device that runs
            eagerly is quicker without them.
    """

    phases: tuple[float, ...] = (0.0,)

    def __init__(
        self, config: ObjectiveConfig, special: list[int], mask_id: int, vocab_size: int, seq_len: int,
        seed: int, static_shapes: bool,
    ) -> None:  # fmt: skip
        final = config.mask_rate if config.final_mask_rate is None else config.final_mask_rate
        self.rate = linear(config.mask_rate, final)
        self.capacity = math.ceil(max(config.mask_rate, final) * seq_len)
        self._seed, self._static = seed, static_shapes
        self._maskable = np.ones(vocab_size, bool)
        self._maskable[special] = False
        ordinary = np.flatnonzero(self._maskable)
        self._replacement = Replacement(mask_id, ordinary, config.replace_mask, config.replace_random)

    def prepare(self, rows: Rows, progress: float) -> MaskedBatch:
        """Hide tokens of the rows at the rate that progress asks for; on the host."""
        keys = row_keys(self._seed, rows.epoch, rows.index)
        positions, used = choose_slots(np.take(self._maskable, rows.tokens), keys, self.rate(progress), self.capacity)
        slots = positions + (np.arange(len(rows.tokens)) * rows.tokens.shape[1])[:, None]
        slots, used = slots.ravel(), used.ravel()
        if not self._static:
            slots, used = _drop_unused(slots, used)
        inputs = rows.tokens.astype(np.int64)
        flat = inputs.reshape(-1)
        labels = flat[slots]
        hidden = slots[used]
        flat[hidden] = self._replacement.show(labels[used], hidden, keys, rows.tokens.shape[1])
        labels[~used] = IGNORED
        return MaskedBatch(
            torch.from_numpy(inputs), torch.from_numpy(rows.documents), torch.from_numpy(slots),
            torch.from_numpy(labels), len(hidden),
        )  # fmt: skip

    def loss(self, model: Any, batch: MaskedBatch) -> torch.Tensor:
        """Sum over the predicted tokens of their negative log-likelihood, nats, fp32 scalar."""
        return model.head.loss(model(batch.inputs, batch.documents, batch.slots), batch.labels)


def _drop_unused(slots: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The used slots, and unused ones up to a multiple of `SLOT_MULTIPLE`."""
    count = int(np.count_nonzero(used))
    kept = min(len(slots), -(-count // SLOT_MULTIPLE) * SLOT_MULTIPLE)
    spare = slots[~used][: kept - count]
    return np.concatenate([slots[used], spare]), np.arange(kept) < count
