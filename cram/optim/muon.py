"""Muon for the hidden matrices, AdamW for all else."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cram.config import MuonConfig, OptimizerConfig
from cram.device import pick_precision
from cram.errors import CramError
from cram.optim.adamw import AdamW

# a, b, c of x -> a x + b x^3 + c x^5: steep at zero, for few steps; the price is that values end near one, not at it.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_SMALLEST_NORM = 1e-7


def check_muon(config: MuonConfig) -> None:
    """Errors: CramError naming the key whose value is impossible."""
    if not 0.0 <= config.momentum < 1.0:
        raise CramError(f"optimizer.muon.momentum={config.momentum} is no decay: give 0 or more, below 1.")
    if config.newton_schulz_steps < 1:
        raise CramError(
            f"optimizer.muon.newton_schulz_steps={config.newton_schulz_steps}: give a positive number, 5 as a rule."
        )
    for name in ("lr", "weight_decay"):
        if getattr(config, name) < 0.0:
            raise CramError(f"optimizer.muon.{name}={getattr(config, name)} is negative: give 0 or more.")


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What weights of a dtype are orthogonalised in: bf16 on a GPU that multiplies it in hardware, else their own."""
    return pick_precision("auto", device) if device.type == "cuda" else dtype


def orthogonalise(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Bring the singular values of each matrix near one and keep its singular vectors.

    Newton-Schulz: divided by the Frobenius norm, then `steps` times x -> a x + b x^3 + c x^5 on the singular values,
    computed by products of matrices. Five steps bring all above 0.002 of the norm between 0.68 and 1.21. A zero
    matrix stays zero.

    Args:
        matrices: (n, rows, columns); all n go through one chain of batched products, on the shorter side.
        dtype: what the products are computed in and returned as.

    Source: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; changed: batched.
    """
    a, b, c = _COEFFICIENTS
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    x = (matrices / norms.clamp(min=_SMALLEST_NORM)).to(dtype)
    tall = x.shape[1] > x.shape[2]
    for _ in range(steps):
        gram = x.mT @ x if tall else x @ x.mT
        change = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, change, beta=a) if tall else torch.baddbmm(x, change, x, beta=a)
    return x


class Muon:
    """Orthogonalised momentum for the group `matrices`, AdamW for every other group.

        m <- mu m + (1 - mu) g
        u <- mu m + (1 - mu) g with Nesterov's momentum, else m
        W <- (1 - lr decay) W - lr sqrt(max(1, rows / columns)) orthogonalise(u)

    A fused weight counts as the blocks of rows it is made of, each a matrix of its own. Blocks of one shape are
    orthogonalised together, in bf16 on a GPU that has it.

    Source: as `orthogonalise`, with the scale by the aspect ratio for which the published learning rates hold (0.02 to
    0.035), not arXiv:2502.16982's, which matches AdamW's; changed: fused weights in blocks.
    """

    def __init__(self, groups: list[dict[str, Any]], config: OptimizerConfig) -> None:
        """Take groups as `parameter_groups` makes them. Errors: CramError for impossible values."""
        check_muon(config.muon)
        self._config = config.muon
        self._others = AdamW([group for group in groups if group["name"] != "matrices"], config)
        (self._matrices,) = [group for group in groups if group["name"] == "matrices"]
        first = self._matrices["params"][0]
        self._product_dtype = product_dtype(first.device, first.dtype)
        self._momentum: dict[str, Tensor] = {}
        self._lr = 0.0

    @torch.no_grad()
    def step(self, multiplier: float) -> None:
        """Update with each group's peak learning rate times `multiplier`; never waits for the device."""
        self._others.step(multiplier)
        self._lr = self._matrices["peak_lr"] * multiplier
        whole = zip(self._matrices["names"], self._matrices["params"], self._matrices["blocks"], strict=True)
        present = [(name, weight, blocks) for name, weight, blocks in whole if weight.grad is not None]
        updates = self._updates([name for name, _, _ in present], [weight.grad for _, weight, _ in present])
        stacks: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for (_, weight, blocks), update in zip(present, updates, strict=True):
            for block, part in zip(_split(weight, blocks), _split(update, blocks), strict=True):
                stacks.setdefault(block.shape, []).append((block, part))
        for stack in stacks.values():
            self._apply([block for block, _ in stack], [part for _, part in stack])

    def lr(self) -> float:
        """The learning rate of the matrices at the latest update, before the scale by their shape."""
        return self._lr

    def state_tensors(self) -> dict[str, Tensor]:
        """The matrices' momentum as `PARAMETER/momentum`, beside AdamW's state of the others."""
        momentum = {f"{name}/momentum": value for name, value in self._momentum.items()}
        return {**momentum, **self._others.state_tensors()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave."""
        named = zip(self._matrices["names"], self._matrices["params"], strict=True)
        self._momentum = {
            name: tensors[f"{name}/momentum"].to(weight.device)
            for name, weight in named
            if f"{name}/momentum" in tensors
        }
        self._others.load_state_tensors(tensors)

    def _updates(self, names: list[str], gradients: list[Tensor]) -> Sequence[Tensor]:
        """Take the gradients into the momentum; what is to be orthogonalised, one for each."""
        for name, gradient in zip(names, gradients, strict=True):
            if name not in self._momentum:
                self._momentum[name] = torch.zeros_like(gradient)
        momenta, mu = [self._momentum[name] for name in names], self._config.momentum
        torch._foreach_lerp_(momenta, gradients, 1.0 - mu)
        return torch._foreach_lerp(gradients, momenta, mu) if self._config.nesterov else momenta

    def _apply(self, weights: list[Tensor], updates: list[Tensor]) -> None:
        """Decay and move weights of one shape."""
        rows, columns = weights[0].shape
        scale = math.sqrt(max(1.0, rows / columns))
        directions = orthogonalise(torch.stack(updates), self._config.newton_schulz_steps, self._product_dtype)
        directions = directions.to(weights[0].dtype)
        torch._foreach_mul_(weights, 1.0 - self._lr * self._matrices["weight_decay"])
        torch._foreach_add_(weights, list(directions.unbind()), alpha=-self._lr * scale)


def _split(matrix: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The blocks of a matrix, as views; the matrix itself where it is not fused."""
    return matrix.split(rows) if rows else (matrix,)
