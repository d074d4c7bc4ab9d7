"""Masked language modelling with a fixed number of slots in each row, and without a random state.

Source: arXiv:1810.04805 (masked LM), arXiv:1907.11692 (other masks in each epoch), arXiv:2305.15096 (a rate that falls
over training), arXiv:2104.07705 (predict hidden positions only); changed: the number of slots is fixed, so that shapes
are static while the rate falls.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import cram_kernels as ck
from cram.config.objective import ObjectiveConfig
from cram.objectives.batch import IGNORED, Batch, PackedRows
from cram.objectives.difficulty import PieceDifficulty
from cram.objectives.objective import Objective, Setting
from cram.objectives.row_rates import RowRates
from cram.objectives.slots import Keys, choose_slots, mix, row_keys
from cram.optim.schedule import Schedule, linear

# Without static shapes the number of slots is still rounded up. Libraries prepare and keep a matrix product for each
# shape, and a new shape in each batch would cost time and gigabytes.
SLOT_MULTIPLE = 64
_REPLACE = np.uint64(0x94D049BB133111EB)


def final_mask_rate(config: ObjectiveConfig) -> float:
    """Share of the tokens predicted at the end of the budget."""
    return config.mask_rate if config.final_mask_rate is None else config.final_mask_rate


def mask_rate(config: ObjectiveConfig) -> Schedule:
    """Share of the tokens predicted over the progress of masked training."""
    return linear(config.mask_rate, final_mask_rate(config))


@dataclass(frozen=True)
class Replacement:
    """What is shown instead of hidden tokens: [MASK], a random ordinary token, or the token itself.

    Source: arXiv:1810.04805 section 3.1.

    Attributes:
        mask_id: id of [MASK].
        ordinary: int64 [n], ids to draw random tokens from.
        mask_share: share shown as [MASK].
        random_share: share shown as a random token; the rest is shown as it is.
    """

    mask_id: int
    ordinary: npt.NDArray[np.int64]
    mask_share: float
    random_share: float

    def show(
        self, tokens: npt.NDArray[np.integer], slots: npt.NDArray[np.int64], keys: Keys, seq_len: int
    ) -> npt.NDArray[np.integer] | int:
        """Choose the ids shown at some positions.

        Args:
            tokens: int [n], the hidden tokens.
            slots: int64 [n], their positions, indices into rows * seq_len.
            keys: uint64 [rows], one for each row.
            seq_len: length of a row.

        Returns:
            Ids to show, [n] or one for all.
        """
        if self.mask_share == 1.0:
            return self.mask_id
        bits = mix(keys[slots // seq_len] ^ mix(_REPLACE ^ (slots % seq_len).astype(np.uint64)))
        draw = bits / 2.0**64
        random = self.ordinary[mix(bits) % np.uint64(len(self.ordinary))]
        as_random = draw < self.mask_share + self.random_share
        return np.where(draw < self.mask_share, self.mask_id, np.where(as_random, random, tokens))


class MaskedObjective(Objective):
    """Hides tokens of packed rows, at a rate that follows progress, and asks the model for them."""

    def __init__(self, config: ObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        assert setting.mask_id is not None
        self.rate = mask_rate(config)
        self.row_rates = RowRates(config.mask_rate_spread)
        most = self.row_rates.most(max(config.mask_rate, final_mask_rate(config)))
        self.capacity = math.ceil(most * setting.seq_len)
        self.difficulty = (
            PieceDifficulty(setting.vocab_size, config.difficulty, config.difficulty_updates, setting.ranks)
            if config.difficulty
            else None
        )
        self._maskable = np.ones(setting.vocab_size, bool)
        self._maskable[setting.special] = False
        ordinary = np.flatnonzero(self._maskable)
        self._replacement = Replacement(setting.mask_id, ordinary, config.replace_mask, config.replace_random)

    def prepare(self, rows: PackedRows, progress: float) -> Batch:
        """Hide tokens of the rows, at the rate of this progress."""
        count, seq_len = rows.tokens.shape
        keys = row_keys(self.setting.seed, rows.epoch, rows.index)
        rates = self.row_rates.draw(self.rate(progress), keys)
        weights = np.take(self.difficulty.weights, rows.tokens) if self.difficulty else None
        positions, used = choose_slots(np.take(self._maskable, rows.tokens), keys, rates, self.capacity, weights)
        slots = positions + (np.arange(count) * seq_len)[:, None]
        slots, used = slots.ravel(), used.ravel()
        if not self.setting.static_shapes:
            slots, used = _drop_unused(slots, used)
        inputs = rows.tokens.astype(np.int64)
        flat = inputs.reshape(-1)
        labels = flat[slots]
        hidden = slots[used]
        flat[hidden] = self._replacement.show(labels[used], hidden, keys, seq_len)
        labels[~used] = IGNORED
        return Batch(
            inputs=torch.from_numpy(inputs),
            documents=torch.from_numpy(rows.documents),
            labels=torch.from_numpy(labels),
            predicted=len(hidden),
            slots=torch.from_numpy(slots),
        )

    def values(self, progress: float) -> dict[str, str]:
        """Describe the mask rate at some progress."""
        return {"objective": f"{self.rate(progress):.1%} masked"}

    def scheduled(self, progress: float) -> dict[str, float]:
        """The mask rate at some progress, and how far the weights of the pieces lie apart."""
        rate = {"mask_rate": self.rate(progress)}
        return rate | {"mask_weight_spread": self.difficulty.spread()} if self.difficulty else rate

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Sum of the nats of the hidden tokens, an fp32 scalar, which are taken by piece in some updates."""
        if not (self.difficulty and self.difficulty.listening):
            return super().loss(model, batch)
        hidden = model.head.transform(model(batch.inputs, batch.documents, batch.slots))
        weight, bias = model.head.output_weight, model.head.bias
        nats = ck.linear_cross_entropy(hidden, weight, batch.labels, bias=bias, reduction="none")
        self.difficulty.record(batch.labels, nats)
        return nats.sum()

    def begin_update(self, update: int) -> None:
        """See `PieceDifficulty.begin_update`."""
        if self.difficulty:
            self.difficulty.begin_update(update)

    def end_update(self, update: int) -> None:
        """See `PieceDifficulty.end_update`."""
        if self.difficulty:
            self.difficulty.end_update(update)

    def state_tensors(self) -> dict[str, Tensor]:
        """The difficulty of the pieces, where it counts."""
        return self.difficulty.state_tensors() if self.difficulty else {}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit.
        """
        self.difficulty.load_state_tensors(tensors) if self.difficulty else super().load_state_tensors(tensors)


def _drop_unused(
    slots: npt.NDArray[np.int64], used: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Keep the used slots, and as many unused ones as make a multiple of `SLOT_MULTIPLE`."""
    count = int(np.count_nonzero(used))
    total = min(len(slots), -(-count // SLOT_MULTIPLE) * SLOT_MULTIPLE)
    spare = slots[~used][: total - count]
    return np.concatenate([slots[used], spare]), np.arange(total) < count
