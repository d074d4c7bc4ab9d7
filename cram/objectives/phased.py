"""The objective of `objective.kind: masked`: causal for the first share of the budget, then masked.

Source: arXiv:2507.00994 (causal, then masked, is best at fixed compute), changed: the mask rate falls over the second
phase, and the schedule and the state of the optimizer continue without a break.
"""

from typing import Any

from torch import Tensor

from cram.config.objective import ObjectiveConfig
from cram.objectives.batch import Batch, PackedRows
from cram.objectives.causal import CausalObjective
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Objective, Setting


class PhasedObjective(Objective):
    """Causal batches while progress is below `objective.causal_share`, then masked ones.

    The share is 0 unless a recipe sets it. Masked training has a progress of its own, which begins at 0 with the second
    phase. In the first phase an encoder does not see later positions, and learns from every position. The causal phase
    may begin with one of superposition.
    """

    def __init__(self, config: ObjectiveConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self._causal = CausalObjective(config, setting)
        self._masked = MaskedObjective(config, setting)
        if config.causal_share:
            self.phases = tuple(sorted({*self._causal.phases, config.causal_share}))

    def rows_joined(self, progress: float) -> int:
        """The number of rows that become one, which is above 1 in a phase of superposition alone."""
        return self._causal.rows_joined(progress) if self.config.causal_share else 1

    def prepare(self, rows: PackedRows, progress: float) -> Batch:
        """Make a batch of the phase that progress is in."""
        share = self.config.causal_share
        if progress < share:
            return self._causal.prepare(rows, progress)
        return self._masked.prepare(rows, (progress - share) / (1.0 - share))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Sum of the nats of the predicted tokens or bags, an fp32 scalar."""
        return (self._causal if batch.causal else self._masked).loss(model, batch)

    def values(self, progress: float) -> dict[str, str]:
        """Describe which phase it is, and the mask rate of the second one."""
        share = self.config.causal_share
        if progress < share:
            return self._causal.values(progress)
        return self._masked.values((progress - share) / (1.0 - share))

    def scheduled(self, progress: float) -> dict[str, float]:
        """The mask rate of the second phase; nothing in the first one."""
        share = self.config.causal_share
        if progress < share:
            return self._causal.scheduled(progress)
        return self._masked.scheduled((progress - share) / (1.0 - share))

    def begin_update(self, update: int) -> None:
        """See `Objective.begin_update`."""
        self._masked.begin_update(update)

    def end_update(self, update: int) -> None:
        """See `Objective.end_update`."""
        self._masked.end_update(update)

    def state_tensors(self) -> dict[str, Tensor]:
        """See `Objective.state_tensors`."""
        return self._masked.state_tensors()

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """See `Objective.load_state_tensors`."""
        self._masked.load_state_tensors(tensors)
