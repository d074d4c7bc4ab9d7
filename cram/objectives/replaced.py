"""Replaced token detection: a generator fills hidden tokens, and a discriminator judges every token.

    loss = sum of the generator's nats + weight * (sum of the discriminator's nats) * predicted / judged

so that, divided by the predicted tokens, it is the mean of the one plus `weight` times the mean of the other.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck
from cram.config.objective import ObjectiveConfig
from cram.objectives.batch import IGNORED, Batch, PackedRows
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Objective, Setting
from cram.objectives.slots import mix, row_keys


@dataclass(frozen=True)
class ReplacedBatch(Batch):
    """A batch with hidden tokens, and what the discriminator needs.

    Attributes:
        original: int64 [rows, seq_len], the tokens of the text.
        judged: fp32 [rows * seq_len], 1 where the discriminator judges, 0 at padding.
        judged_count: number of tokens that are judged.
        seed: of the tokens that are drawn from the generator.
    """

    original: Tensor = torch.empty(0, dtype=torch.int64)
    judged: Tensor = torch.empty(0)
    judged_count: int = 0
    seed: int = 0

    def to(self, device: torch.device) -> "ReplacedBatch":
        """Copy the batch to a device, without waiting for the copy."""
        if device.type == "cpu":
            return self
        common = super().to(device)
        return replace(
            self,
            **{field.name: getattr(common, field.name) for field in fields(Batch)},
            original=self.original.pin_memory().to(device, non_blocking=True),
            judged=self.judged.pin_memory().to(device, non_blocking=True),
        )


def fill(logits: Tensor, batch: ReplacedBatch) -> Tensor:
    """Draw a token from the generator for each hidden one, and give the tokens that the discriminator reads.

    No gradient passes through.

    Args:
        logits: of the slots, (slots, vocab_size).

    Returns:
        int64 (rows, seq_len), the original tokens where nothing was hidden.
    """
    assert batch.slots is not None
    with torch.no_grad():
        generator = torch.Generator(logits.device).manual_seed(batch.seed)
        # The largest of p / e, with exponential e, is a draw from p; unlike multinomial, it bears NaN.
        noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator)
        drawn = (logits.float().softmax(-1) / noise).argmax(-1)
        flat = batch.original.flatten()
        kept = flat[batch.slots]
        filled = flat.scatter(0, batch.slots, torch.where(batch.labels == IGNORED, kept, drawn))
        return filled.view_as(batch.original)


class ReplacedObjective(Objective):
    """Hides tokens as the masked objective does; a token that the generator restores counts as original.

    Source: arXiv:2003.10555, changed: the share of the hidden tokens and what stands for them are those of the recipe.
    """

    def __init__(self, config: ObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self._masked = MaskedObjective(config, setting)

    def prepare(self, rows: PackedRows, progress: float) -> ReplacedBatch:
        """Hide tokens of the rows, at the rate of this progress."""
        masked = self._masked.prepare(rows, progress)
        judged = rows.tokens != self.setting.pad_id
        keys = mix(row_keys(self.setting.seed, rows.epoch, rows.index))
        return ReplacedBatch(
            **{field.name: getattr(masked, field.name) for field in fields(Batch)},
            original=torch.from_numpy(rows.tokens.astype(np.int64)),
            judged=torch.from_numpy(judged.astype(np.float32).ravel()),
            judged_count=int(np.count_nonzero(judged)),
            seed=int(np.bitwise_xor.reduce(keys) >> np.uint64(8)),
        )

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Sum of the nats of generator and discriminator, as the module describes it: an fp32 scalar."""
        assert isinstance(batch, ReplacedBatch)
        logits = model.head(model(batch.inputs, batch.documents, batch.slots))
        nats: Tensor = ck.cross_entropy(logits, batch.labels, reduction="sum")
        filled = fill(logits, batch)
        replaced = (filled != batch.original).flatten().float()
        verdicts = model.discriminate(filled, batch.documents).float()
        judged = F.binary_cross_entropy_with_logits(verdicts, replaced, weight=batch.judged, reduction="sum")
        share = batch.predicted / max(batch.judged_count, 1)
        return nats + self.config.discriminator_weight * share * judged

    def values(self, progress: float) -> dict[str, str]:
        """Describe the mask rate at some progress."""
        return self._masked.values(progress)

    def scheduled(self, progress: float) -> dict[str, float]:
        """The mask rate at some progress."""
        return self._masked.scheduled(progress)
