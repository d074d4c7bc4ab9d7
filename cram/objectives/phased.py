"""Causal language modelling for the first share of the budget, then masked language modelling with the same weights.

Source: arXiv:2507.00994 (causal, then masked, is best at fixed compute), changed: the mask rate falls over the second
phase, and the schedule and the optimizer's state go on as if nothing had happened.
"""

from typing import Any

import torch

from cram.objectives.causal import CausalBatch, CausalObjective
from cram.objectives.masked import MaskedBatch, MaskedObjective, Rows


class CausalThenMasked:
    """Batches of `causal` while progress is below `share`, and then of `masked`, whose own progress starts there at 0.

    An encoder sees what comes after a position in the second phase only; every position teaches it in the first.
    """

    def __init__(self, causal: CausalObjective, masked: MaskedObjective, share: float) -> None:
        self.phases: tuple[float, ...] = (0.0, share)
        self._causal, self._masked = causal, masked

    def prepare(self, rows: Rows, progress: float) -> CausalBatch | MaskedBatch:
        """A batch of the phase that progress is in; on the host."""
        share = self.phases[1]
        if progress < share:
            return self._causal.prepare(rows, progress)
        return self._masked.prepare(rows, (progress - share) / (1.0 - share))

    def loss(self, model: Any, batch: CausalBatch | MaskedBatch) -> torch.Tensor:
        """Sum over the predicted tokens of their negative log-likelihood, nats, fp32 scalar."""
        if isinstance(batch, CausalBatch):
            return self._causal.loss(model, batch)
        return self._masked.loss(model, batch)
