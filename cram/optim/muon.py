"""Muon for the hidden matrices, AdamW for all else."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.optim.adamw import AdamW
from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer
from cram.optim.schedule import Schedule, linear, ramp
from cram.optim.whitening import product_dtype, whiten

# Below this root mean square a row of an update has no direction of its own.
_TINY = 1e-10


def momentum_schedule(config: MuonConfig) -> Schedule:
    """Momentum over progress: linear from `momentum_start` to `momentum` until `momentum_warmup`, then constant."""
    start = config.momentum if config.momentum_start is None else config.momentum_start
    return ramp(start, config.momentum, config.momentum_warmup)


def newton_schulz_steps(config: MuonConfig, progress: float) -> int:
    """Newton-Schulz steps at some progress: a line from `newton_schulz_steps` to the final number, rounded."""
    first, final = config.newton_schulz_steps, config.final_newton_schulz_steps
    return first if final is None else round(linear(first, final)(progress))


class _Matrix(NamedTuple):
    """One matrix of a weight: views of its weight, its update and, with `row_beta2`, its rows' squares (rows, 1)."""

    weight: Tensor
    update: Tensor
    squares: Tensor | None


class Muon(Optimizer):
    """Orthogonalised momentum for the group `matrices`, AdamW for every other group.

        m <- mu m + (1 - mu) g
        u <- mu m + (1 - mu) g with Nesterov's momentum, else m
        W <- W - lr (sqrt(max(1, rows / columns)) whiten(u) + decay W)

    A fused weight is split into its matrices, and each is orthogonalised by itself. Matrices of one shape are
    orthogonalised together, in bf16 where the device has it. Cautious decay spares the elements of W that the update
    does not shrink anyway.

    Source: as `orthogonalise`. The scale by the aspect ratio is the one that the published learning rates (0.02 to
    0.035) are for, not the one of arXiv:2502.16982, which matches AdamW's rates; changed: fused weights are split.
    Momentum that rises over the first updates: K. Jordan et al. 2024, modded-nanogpt. Cautious decay: arXiv:2510.12402.
    Rows of even size (`row_beta2`): arXiv:2510.05491, algorithm 1; changed: the Frobenius norm of the matrix is kept,
    as modded-nanogpt does it, so that the learning rate need not be another one.
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
    def update(self, progress: float, finite: Tensor | None) -> None:
        """Update with each group's learning rate, and the momentum and decay of `progress`.

        Where `finite` is False, the gradients are not looked at.
        """
        self._others.step(self._multiplier, progress, finite, self._others_multiplier)
        decay = self._matrices.weight_decay * self.decay(progress)
        steps = newton_schulz_steps(self.config.muon, progress)
        weights, splits, gradients = self._with_gradients()
        updates = self._updates(weights, gradients, self._momentum_at(progress), finite)
        stacks: dict[torch.Size, list[_Matrix]] = {}
        for weight, rows, update in zip(weights, splits, updates, strict=True):
            for matrix in self._matrices_of(weight, rows, update):
                stacks.setdefault(matrix.weight.shape, []).append(matrix)
        for stack in stacks.values():
            self._apply(stack, steps, decay, finite)

    def first_state(self, group: ParameterGroup, parameter: Tensor) -> dict[str, Tensor]:
        """A matrix' momentum, of its shape, and with `row_beta2` the mean squares of its rows, (rows, 1).

        AdamW's state for a parameter of another group.
        """
        if group is not self._matrices:
            return self._others.first_state(group, parameter)
        state = {"momentum": torch.zeros_like(parameter)}
        if self.config.muon.row_beta2 is not None:
            state["row_squares"] = torch.zeros_like(parameter[:, :1])
        return state

    def values(self, progress: float) -> dict[str, str]:
        """Describe the weight decay, the momentum and the Newton-Schulz steps, if they change, at some progress."""
        texts = super().values(progress) | {"momentum": f"{self._momentum_at(progress):.3f}"}
        if self.config.muon.final_newton_schulz_steps is not None:
            texts["Newton-Schulz steps"] = str(newton_schulz_steps(self.config.muon, progress))
        return texts

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

    def _matrices_of(self, weight: Tensor, rows: tuple[int, ...], update: Tensor) -> list[_Matrix]:
        """The matrices of a weight, one below the other."""
        squares = self.state[weight].get("row_squares")
        parts = [_split(tensor, rows) for tensor in (weight, update)]
        of_rows = _split(squares, rows) if squares is not None else [None] * len(parts[0])
        return [_Matrix(*matrix) for matrix in zip(*parts, of_rows, strict=True)]

    def _apply(self, stack: list[_Matrix], steps: int, decay: float, finite: Tensor | None) -> None:
        """Decay and move weights of one shape."""
        config, weights = self.config.muon, [matrix.weight for matrix in stack]
        rows, columns = weights[0].shape
        scale = math.sqrt(max(1.0, rows / columns))
        directions = whiten(torch.stack([matrix.update for matrix in stack]), config, steps, self._product_dtype)
        change = directions.to(weights[0].dtype) * scale
        if config.row_beta2 is not None:
            squares = [matrix.squares for matrix in stack if matrix.squares is not None]
            change = even_rows(change, squares, config.row_beta2, finite)
        if decay:
            stacked = torch.stack(weights)
            change += decay * (stacked * (stacked * change > 0) if config.cautious else stacked)
        if finite is not None:
            change *= finite
        torch._foreach_add_(weights, list(change.unbind()), alpha=-self.lr_of(self._matrices))


def even_rows(matrices: Tensor, squares: list[Tensor], beta2: float, finite: Tensor | None) -> Tensor:
    """Divide each row by the root of its running mean square; each matrix keeps its Frobenius norm.

    Args:
        matrices: (n, rows, columns).
        squares: the running mean of each row's mean square, n tensors (rows, 1), which are brought up to date.
        beta2: decay rate of the mean. It begins at zero, which the norm that is kept makes up for.
        finite: bool scalar; where it is False, the means stay as they are.
    """
    means = matrices.square().mean(dim=2, keepdim=True)
    before = torch.stack(squares)
    means = before.lerp(means, 1.0 - beta2)
    if finite is not None:
        means = torch.where(finite, means, before)
    torch._foreach_copy_(squares, list(means.unbind()))
    even = matrices / means.sqrt().clamp(min=_TINY)
    norms = [torch.linalg.vector_norm(each, dim=(1, 2), keepdim=True) for each in (matrices, even)]
    even *= norms[0] / norms[1].clamp(min=_TINY)
    return even


def _split(matrix: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The matrices of a fused weight as views; the weight itself where it is a single matrix."""
    return matrix.split(rows) if rows else (matrix,)
