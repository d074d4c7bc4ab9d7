"""Muon for the hidden matrices, AdamW for all else."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.optim.adamw import AdamW
from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer
from cram.optim.schedule import Schedule, linear, ramp
from cram.optim.whitening import divide_by_norm_, product_dtype, whiten

# Below this root mean square a row of an update has no direction of its own.
_TINY = 1e-10
# Elements that a CPU works on at a time. With their momentum, gradients and copies they fit into the cache of a core.
_CACHED = 2**18


def momentum_schedule(config: MuonConfig) -> Schedule:
    """Momentum over progress: linear from `momentum_start` to `momentum` until `momentum_warmup`, then constant."""
    start = config.momentum if config.momentum_start is None else config.momentum_start
    return ramp(start, config.momentum, config.momentum_warmup)


def newton_schulz_steps(config: MuonConfig, progress: float) -> int:
    """Newton-Schulz steps at some progress: a line from `newton_schulz_steps` to the final number, rounded."""
    first, final = config.newton_schulz_steps, config.final_newton_schulz_steps
    return first if final is None else round(linear(first, final)(progress))


class _Matrix(NamedTuple):
    """One matrix of a weight: views of the weight and what belongs to it; with `row_beta2` squares of (rows, 1)."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor
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

    whole_matrices = True

    def __init__(self, groups: list[ParameterGroup], config: OptimizerConfig) -> None:
        super().__init__(groups, config)
        self._momentum_at = momentum_schedule(config.muon)

    def set_groups(self, groups: list[ParameterGroup]) -> None:
        """Take the matrices for Muon, and give the other groups to AdamW."""
        super().set_groups(groups)
        (self._matrices,) = [group for group in groups if group.name == "matrices"]
        self._others = AdamW([group for group in groups if group is not self._matrices], self.config, self.state)
        first = next(iter(self._matrices.parameters), torch.empty(0))  # a rank may own no matrix
        self._product_dtype = product_dtype(first.device, first.dtype, self.config.muon.products)

    @torch.no_grad()
    def update(self, progress: float, finite: Tensor | None) -> None:
        """Update with each group's learning rate, and the momentum and decay of `progress`.

        Where `finite` is False, the gradients are not looked at.
        """
        self._others.step(self._multiplier, progress, finite, self._others_multiplier)
        stacks: dict[torch.Size, list[_Matrix]] = {}
        for weight, rows in zip(self._matrices.parameters, self._matrices.splits, strict=True):
            if weight.grad is not None:
                for matrix in self._matrices_of(weight, weight.grad, rows):
                    stacks.setdefault(matrix.weight.shape, []).append(matrix)
        for stack in stacks.values():
            self._move(stack, self._directions(stack, progress, finite), progress, finite)

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

    def _matrices_of(self, weight: Tensor, gradient: Tensor, rows: tuple[int, ...]) -> list[_Matrix]:
        """The matrices of a weight, one below the other."""
        if not self.state[weight]:
            self.state[weight] = self.first_state(self._matrices, weight)
        state = self.state[weight]
        parts = [_split(tensor, rows) for tensor in (weight, gradient, state["momentum"])]
        squares = _split(state["row_squares"], rows) if "row_squares" in state else [None] * len(parts[0])
        return [_Matrix(*matrix) for matrix in zip(*parts, squares, strict=True)]

    def _directions(self, stack: list[_Matrix], progress: float, finite: Tensor | None) -> Tensor:
        """Take the gradients of matrices of one shape, and return the whitened directions, (n, rows, columns)."""
        config, first = self.config.muon, stack[0].momentum
        dtype = self._product_dtype if config.whitening == "newton_schulz" else first.dtype
        updates = first.new_empty((len(stack), *first.shape), dtype=dtype)
        parts = _parts(len(stack), first)
        ahead = first.new_empty((len(stack[parts[0]]), *first.shape))
        for part in parts:
            updates[part] = divide_by_norm_(self._take_gradients(stack[part], ahead, progress, finite))
        directions = whiten(updates, config, newton_schulz_steps(config, progress), self._product_dtype)
        if config.row_beta2 is not None:
            squares = [matrix.squares for matrix in stack if matrix.squares is not None]
            directions = even_rows(directions.to(first.dtype), squares, config.row_beta2, finite)
        return directions

    def _take_gradients(self, stack: list[_Matrix], ahead: Tensor, progress: float, finite: Tensor | None) -> Tensor:
        """Take the gradients into the momenta, and write what is to be whitened over the first matrices of `ahead`."""
        momentum = self._momentum_at(progress)
        momenta, gradients = [matrix.momentum for matrix in stack], [matrix.gradient for matrix in stack]
        if finite is not None:
            # lerp(m, m) = m: a step that is not finite leaves the momentum unchanged.
            gradients = [torch.where(finite, *pair) for pair in zip(gradients, momenta, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1.0 - momentum)
        weight = momentum if self.config.muon.nesterov else 1.0
        for gradient, mean, out in zip(gradients, momenta, ahead[: len(stack)], strict=True):
            torch.lerp(gradient, mean, weight, out=out)
        return ahead[: len(stack)]

    def _move(self, stack: list[_Matrix], directions: Tensor, progress: float, finite: Tensor | None) -> None:
        """Decay and move weights of one shape."""
        rows, columns = stack[0].weight.shape
        lr = self.lr_of(self._matrices)
        alpha = -lr * math.sqrt(max(1.0, rows / columns))
        decay: float | Tensor = lr * self._matrices.weight_decay * self.decay(progress)
        if finite is not None:
            directions = directions * finite
            decay = finite.to(stack[0].weight.dtype) * decay
        for part in _parts(len(stack), stack[0].weight):
            weights, moves = [matrix.weight for matrix in stack[part]], list(directions[part].unbind())
            if self.config.muon.cautious:
                for weight, move in zip(weights, moves, strict=True):
                    weight.sub_(weight * (weight * move > 0) * decay)
            else:
                torch._foreach_mul_(weights, 1.0 - decay)
            torch._foreach_add_(weights, moves, alpha=alpha)


def _parts(count: int, matrix: Tensor) -> list[slice]:
    """Slices of so many matrices: a CPU keeps a part in its cache from one operation to the next."""
    size = max(1, _CACHED // matrix.numel()) if matrix.device.type == "cpu" else count
    return [slice(begin, begin + size) for begin in range(0, count, size)]


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
