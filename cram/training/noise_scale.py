"""The gradient noise scale: the size of an update at which the noise of its gradient is as large as the gradient.

An update averages the gradients of its tokens. With G the mean gradient over all data and Sigma the covariance of the
gradient of one token, the squared norm of the gradient over b tokens has the expected value |G|^2 + tr(Sigma) / b. Two
sizes give both unknowns, and the noise scale is B = tr(Sigma) / |G|^2. Updates far smaller than B gain from more
tokens almost in proportion; updates far larger than B gain little.

The two sizes are the micro-batches of an update and the update itself, so that no further pass is needed. An update of
one micro-batch is cut into two halves when it is measured, which changes rounding alone.

Source: arXiv:1812.06162 equation 2.9 and appendix A.1; changed: the small sizes are all micro-batches of one device,
which may differ in size, and sizes count the predicted tokens, which alone have a loss. The result is in positions, the
unit of `batch.tokens`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

EVERY = 16  # updates from one measurement to the next
# The same where an update is one compiled micro-batch. Its halves run eagerly, because compiling for them is not worth
# it. If they take half as long again, which is an estimate, that costs 0.8% of the time.
EVERY_EAGERLY = 64
# Share of the running means that stays at a new measurement. They cover about twenty: one alone is off by as much as
# the squared gradient itself, where the update is a fraction of the noise scale.
_KEPT = 0.95
_TOO_SHORT = (
    f"the last phase is too short, for one update in {EVERY} is measured, and one in {EVERY_EAGERLY} where it is one "
    "compiled micro-batch"
)


@dataclass
class NoiseProbe:
    """One measurement, of an update of at least two micro-batches.

    Attributes:
        positions: positions of the update, padding included.
        micro_rows: most rows of a micro-batch of this update.
        predicted: predicted tokens of each micro-batch.
        norms: root of the sum of the squared norms of all micro-batches, and norm of the whole update: fp32 scalars on
            the device, in the order in which they become known. Both are of gradients of the loss of the update, which
            is a sum over tokens divided by their count.
    """

    positions: int
    micro_rows: int
    predicted: list[int] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watch(self, model: nn.Module, predicted: list[int], factor: Tensor | float) -> Iterator[None]:
        """Take the norm of the gradient of each micro-batch, before it is added to that of those before.

        Args:
            predicted: predicted tokens of each micro-batch.
            factor: what the loss is multiplied by: the loss scale of fp16 training.
        """
        norms: list[Tensor] = []
        hooks = [
            parameter.register_hook(lambda gradient: norms.append(torch.linalg.vector_norm(gradient)))
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self.predicted = predicted
        self.norms = [torch.linalg.vector_norm(torch.stack(norms)) / factor]

    def record_whole(self, norm: Tensor) -> None:
        """Record the norm of the gradient of the whole update."""
        self.norms.append(norm)

    def estimate(self, parts_norm: float, whole_norm: float) -> tuple[float, float] | None:
        """Estimate the squared norm of the mean gradient, and the trace of the covariance for one position.

        Both are unbiased, so either can be negative. The first is the mean product of the gradients of two different
        micro-batches. None where fewer than two micro-batches have predicted tokens.
        """
        whole = sum(self.predicted)
        share = sum(part**2 for part in self.predicted) / max(whole, 1) ** 2
        if not 0.0 < share < 1.0:
            return None
        # The expected values: parts = share * |G|^2 + tr(Sigma) / whole, and update = |G|^2 + tr(Sigma) / whole.
        parts, update = parts_norm**2, whole_norm**2
        gradient_square = (update - parts) / (1.0 - share)
        noise = (parts - share * update) / (1.0 - share)
        return gradient_square, noise * self.positions


@dataclass
class NoiseScale:
    """The noise scale of a run so far. It is part of its checkpoints.

    Attributes:
        gradient_square: running mean of the squared norm of the mean gradient.
        trace: running mean of the trace of the covariance, for one position.
        measured: measurements since the phase of the objective began.
        positions: positions of the latest update that was measured.
        obstacle: why the latest update that was due could not be measured; empty where it was.
    """

    gradient_square: float = 0.0
    trace: float = 0.0
    measured: int = 0
    positions: int = 0
    obstacle: str = ""

    def begin(
        self, update: int, rows: int, seq_len: int, micro_rows: int, compiled: bool, cuda_graphs: bool
    ) -> NoiseProbe | None:
        """Begin a measurement if one is due and possible.

        Args:
            update: number of the update, from 1.
            rows: that the update trains on.
            micro_rows: rows of a micro-batch.
            compiled: whether micro-batches of this size run compiled code.
            cuda_graphs: whether a micro-batch of another size would have to be recorded as another CUDA graph.
        """
        whole = rows <= micro_rows
        if update % (EVERY_EAGERLY if whole and compiled else EVERY):
            return None
        self.obstacle = ""
        if rows < 2:
            self.obstacle = "an update is one row, which cannot be split"
        elif whole and cuda_graphs:
            self.obstacle = "an update is one micro-batch, which CUDA graphs do not let be split"
        return None if self.obstacle else NoiseProbe(rows * seq_len, min(micro_rows, -(-rows // 2)))

    def add(self, probe: NoiseProbe, parts_norm: float, whole_norm: float) -> None:
        """Add a measurement. The two means are kept apart, because the mean of their ratio would be biased."""
        estimates = probe.estimate(parts_norm, whole_norm)
        if estimates is None:
            self.obstacle = "only one micro-batch has tokens to predict"
            return
        self.measured += 1
        self.positions = probe.positions
        weight = (1 - _KEPT) / (1 - _KEPT**self.measured)  # as if the means had not begun at zero
        self.gradient_square += weight * (estimates[0] - self.gradient_square)
        self.trace += weight * (estimates[1] - self.trace)

    def tokens(self) -> float | None:
        """Give the noise scale in positions. None where it is not known: see `note`."""
        return None if self.note() else self.trace / self.gradient_square

    def note(self) -> str:
        """Say why the noise scale is not known; empty where it is."""
        if not self.measured:
            return f"not measured: {self.obstacle or _TOO_SHORT}"
        if self.gradient_square <= 0.0:
            return "not known: the noise hides the gradient, so that its mean square is not above zero"
        if self.trace <= 0.0:
            return "not known: the noise is too small to be seen beside the gradient"
        return ""

    def report(self) -> dict[str, Any]:
        """Compose what the receipt says, with the critical batch, which is taken to be the noise scale.

        `update_share` is the size of an update relative to the critical batch.
        """
        tokens = self.tokens()
        return {
            "tokens": tokens,
            "critical_batch_tokens": tokens,
            "update_tokens": self.positions,
            "update_share": None if tokens is None else self.positions / tokens,
            "gradient_square": self.gradient_square,
            "trace": self.trace,
            "measured_updates": self.measured,
            "note": self.note() or "the critical batch is estimated by the noise scale",
        }
