"""Muon for the hidden matrices, AdamW for all else."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.machine.device import pick_precision
from cram.optim.adamw import AdamW
from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer
from cram.optim.schedule import Schedule, ramp

# a, b, c of x -> a x + b x^3 + c x^5. The curve is steep at zero, so that few steps suffice; in exchange the values end
# near one and not at one.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_TINY = torch.finfo(torch.float32).tiny


def momentum_schedule(config: MuonConfig) -> Schedule:
    """Momentum over progress: linear from `momentum_start` to `momentum` until `momentum_warmup`, then constant."""
    start = config.momentum if config.momentum_start is None else config.momentum_start
    return ramp(start, config.momentum, config.momentum_warmup)


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the matrix products for weights of this dtype: bf16 for fp32 weights on a device with fast bf16.

    Other weights keep their own dtype. fp16 is never used, because its range is too small for the first products.
    """
    fast = dtype == torch.float32 and pick_precision("auto", device) == torch.bfloat16
    return torch.bfloat16 if fast else dtype


def orthogonalise(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Bring the singular values of each matrix near one and keep its singular vectors.

    Newton-Schulz iteration: each matrix is divided by its Frobenius norm, then x -> a x + b x^3 + c x^5 is applied
    `steps` times to its singular values by matrix products. Five steps bring every singular value above 0.002 of the
    norm between 0.68 and 1.21. A zero matrix stays zero.

    Args:
        matrices: (n, rows, columns); all n go through one chain of batched products, on the shorter side.
        steps: number of iterations.
        dtype: dtype of the products and of the result.

    Returns:
        The orthogonalised matrices, of the same shape.

    Source: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; changed: batched.
    """
    a, b, c = _COEFFICIENTS
    # Divided by the largest element first: squares of small elements would vanish, and squares of large ones overflow.
    scaled = matrices / matrices.abs().amax(dim=(1, 2), keepdim=True).clamp(min=_TINY)
    norms = torch.linalg.vector_norm(scaled, dim=(1, 2), keepdim=True)
    x: Tensor = (scaled / norms.clamp(min=_TINY)).to(dtype)
    tall = x.shape[1] > x.shape[2]
    for _ in range(steps):
        gram = x.mT @ x if tall else x @ x.mT
        change = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, change, beta=a) if tall else torch.baddbmm(x, change, x, beta=a)
    return x


class Muon(Optimizer):
    """Orthogonalised momentum for the group `matrices`, AdamW for every other group.

        m <- mu m + (1 - mu) g
        u <- mu m + (1 - mu) g with Nesterov's momentum, else m
        W <- W - lr (sqrt(max(1, rows / columns)) orthogonalise(u) + decay W)

    A fused weight is split into its matrices, and each is orthogonalised by itself. Matrices of one shape are
    orthogonalised together, in bf16 where the device has it. Cautious decay spares the elements of W that the update
    does not shrink anyway.

    Source: as `orthogonalise`. The scale by the aspect ratio is the one that the published learning rates (0.02 to
    0.035) are for, not the one of arXiv:2502.16982, which matches AdamW's rates; changed: fused weights are split.
    Momentum that rises over the first updates: K. Jordan et al. 2024, modded-nanogpt. Cautious decay: arXiv:2510.12402.
    """

    def __init__(self, groups: list[ParameterGroup], config: OptimizerConfig) -> None:
        super().__init__(groups, config)
        self._momentum_at = momentum_schedule(config.muon)

    def set_groups(self, groups: list[ParameterGroup]) -> None:
        """Take the matrices for Muon, and give the other groups to AdamW."""
        super().set_groups(groups)
        (self._matrices,) = [group for group in groups if group.name == "matrices"]
        self._others = AdamW([group for group in groups if group is not self._matrices], self.config, self.state)
        first = self._matrices.parameters[0]
        self._product_dtype = product_dtype(first.device, first.dtype)

    @torch.no_grad()
    def step(self, multiplier: float, progress: float, finite: Tensor | None = None) -> None:
        """Update with each group's peak learning rate times `multiplier`, momentum and decay those of `progress`.

        Where `finite` is False, the gradients are not looked at.
        """
        super().step(multiplier, progress, finite)
        self._others.step(multiplier, progress, finite)
        decay = self._matrices.weight_decay * self.decay(progress)
        weights, splits, gradients = self._with_gradients()
        updates = self._updates(weights, gradients, self._momentum_at(progress), finite)
        stacks: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for weight, rows, update in zip(weights, splits, updates, strict=True):
            for matrix, change in zip(_split(weight, rows), _split(update, rows), strict=True):
                stacks.setdefault(matrix.shape, []).append((matrix, change))
        for stack in stacks.values():
            self._apply([matrix for matrix, _ in stack], [change for _, change in stack], decay, finite)

    def first_state(self, group: ParameterGroup, parameter: Tensor) -> dict[str, Tensor]:
        """A matrix' momentum, of its shape; AdamW's state for a parameter of another group."""
        if group is not self._matrices:
            return self._others.first_state(group, parameter)
        return {"momentum": torch.zeros_like(parameter)}

    def values(self, progress: float) -> dict[str, str]:
        """Describe the weight decay and the momentum at some progress."""
        return super().values(progress) | {"momentum": f"{self._momentum_at(progress):.3f}"}

    def scheduled(self, progress: float) -> dict[str, float]:
        """The weight decay and the momentum of the matrices at some progress."""
        return super().scheduled(progress) | {"momentum": self._momentum_at(progress)}

    def _with_gradients(self) -> tuple[list[Tensor], list[tuple[int, ...]], list[Tensor]]:
        """The weights that have a gradient, the rows of each matrix in them, and the gradients."""
        weights: list[Tensor] = []
        splits: list[tuple[int, ...]] = []
        gradients: list[Tensor] = []
        for weight, rows in zip(self._matrices.parameters, self._matrices.splits, strict=True):
            if weight.grad is not None:
                weights.append(weight)
                splits.append(rows)
                gradients.append(weight.grad)
        return weights, splits, gradients

    def _updates(
        self, weights: list[Tensor], gradients: list[Tensor], momentum: float, finite: Tensor | None
    ) -> Sequence[Tensor]:
        """Take the gradients into the momentum and return one update for each weight, not yet orthogonalised."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = self.first_state(self._matrices, weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        if finite is not None:
            # lerp(m, m) = m: a step that is not finite leaves the momentum unchanged.
            gradients = [torch.where(finite, *pair) for pair in zip(gradients, momenta, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1.0 - momentum)
        return torch._foreach_lerp(gradients, momenta, momentum) if self.config.muon.nesterov else momenta

    def _apply(self, weights: list[Tensor], updates: list[Tensor], decay: float, finite: Tensor | None) -> None:
        """Decay and move weights of one shape."""
        rows, columns = weights[0].shape
        scale = math.sqrt(max(1.0, rows / columns))
        directions = orthogonalise(torch.stack(updates), self.config.muon.newton_schulz_steps, self._product_dtype)
        change = directions.to(weights[0].dtype) * scale
        if decay:
            stacked = torch.stack(weights)
            change += decay * (stacked * (stacked * change > 0) if self.config.muon.cautious else stacked)
        if finite is not None:
            change *= finite
        torch._foreach_add_(weights, list(change.unbind()), alpha=-self._matrices.peak_lr * self._multiplier)


def _split(matrix: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The matrices of a fused weight as views; the weight itself where it is a single matrix."""
    return matrix.split(rows) if rows else (matrix,)
