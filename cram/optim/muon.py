"""Muon for the hidden matrices, AdamW for all else."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cram.config.training import MuonConfig, OptimizerConfig
from cram.files.tensors import check_tensors
from cram.machine.device import pick_precision
from cram.optim.adamw import AdamW, decay_schedule
from cram.optim.schedule import Schedule, ramp

# a, b, c of x -> a x + b x^3 + c x^5: steep at zero, for few steps; the price is that values end near one, not at it.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_TINY = torch.finfo(torch.float32).tiny


def momentum_schedule(config: MuonConfig) -> Schedule:
    """Momentum over progress: linear from `momentum_start` to `momentum` until `momentum_warmup`, then constant."""
    start = config.momentum if config.momentum_start is None else config.momentum_start
    return ramp(start, config.momentum, config.momentum_warmup)


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What fp32 weights are orthogonalised in: bf16 where the device multiplies it in hardware; others in their own.

    Never fp16: its range is too small for the first products.
    """
    fast = dtype == torch.float32 and pick_precision("auto", device) == torch.bfloat16
    return torch.bfloat16 if fast else dtype


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
    # By the largest element first: the squares of small ones would vanish, and those of large ones overflow.
    scaled = matrices / matrices.abs().amax(dim=(1, 2), keepdim=True).clamp(min=_TINY)
    norms = torch.linalg.vector_norm(scaled, dim=(1, 2), keepdim=True)
    x = (scaled / norms.clamp(min=_TINY)).to(dtype)
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
        W <- W - lr (sqrt(max(1, rows / columns)) orthogonalise(u) + decay W)

    A fused weight counts as the blocks of rows it is made of, each a matrix of its own. Blocks of one shape are
    orthogonalised together, in bf16 where the device has it. Cautious decay leaves out the elements of W that the
    update itself is not shrinking.

    Source: as `orthogonalise`, with the scale by the aspect ratio for which the published learning rates hold (0.02 to
    0.035), not arXiv:2502.16982's, which matches AdamW's; changed: fused weights in blocks. Momentum that rises over
    the first updates: K. Jordan et al. 2024, modded-nanogpt. Cautious decay: arXiv:2510.12402.
    """

    def __init__(self, groups: list[dict[str, Any]], config: OptimizerConfig) -> None:
        """Take groups as `parameter_groups` makes them."""
        self._config = config.muon
        self._others = AdamW([group for group in groups if group["name"] != "matrices"], config)
        (self._matrices,) = [group for group in groups if group["name"] == "matrices"]
        first = self._matrices["params"][0]
        self._product_dtype = product_dtype(first.device, first.dtype)
        self._momentum: dict[str, Tensor] = {}
        self._mu = momentum_schedule(config.muon)
        self._decay = decay_schedule(config)
        self._lr = 0.0

    @torch.no_grad()
    def step(self, multiplier: float, progress: float, finite: Tensor | None = None) -> None:
        """Update with each group's peak learning rate times `multiplier`; never waits for the device.

        Momentum and decay are those of `progress`. Where `finite`, a bool scalar on the device, is False, the
        gradients are not looked at and nothing changes.
        """
        self._others.step(multiplier, progress, finite)
        self._lr = self._matrices["peak_lr"] * multiplier
        decay = self._matrices["weight_decay"] * self._decay(progress)
        whole = zip(self._matrices["names"], self._matrices["params"], self._matrices["blocks"], strict=True)
        present = [(name, weight, blocks) for name, weight, blocks in whole if weight.grad is not None]
        gradients = [weight.grad for _, weight, _ in present]
        updates = self._updates([name for name, _, _ in present], gradients, self._mu(progress), finite)
        stacks: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for (_, weight, blocks), update in zip(present, updates, strict=True):
            for block, part in zip(_split(weight, blocks), _split(update, blocks), strict=True):
                stacks.setdefault(block.shape, []).append((block, part))
        for stack in stacks.values():
            self._apply([block for block, _ in stack], [part for _, part in stack], decay, finite)

    def lr(self) -> float:
        """The learning rate of the matrices at the latest update, before the scale by their shape."""
        return self._lr

    def state_tensors(self) -> dict[str, Tensor]:
        """The matrices' momentum as `PARAMETER/momentum`, beside AdamW's state of the others; none before an update."""
        others = self._others.state_tensors()
        if not self._momentum and not others:
            return {}
        momentum = {name: self._momentum.get(name, torch.zeros_like(weight)) for name, weight in self._named()}
        return {f"{name}/momentum": value for name, value in momentum.items()} | others

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave. Errors: CramError naming a tensor that does not fit."""
        momentum = {f"{name}/momentum": weight for name, weight in self._named()}
        if tensors:
            check_tensors(tensors, momentum | self._others.wanted_tensors())
        self._momentum = {
            name: tensors[f"{name}/momentum"].to(weight.device) for name, weight in self._named() if tensors
        }
        self._others.load_state_tensors({name: value for name, value in tensors.items() if name not in momentum})

    def _named(self) -> list[tuple[str, Tensor]]:
        return list(zip(self._matrices["names"], self._matrices["params"], strict=True))

    def _updates(self, names: list[str], gradients: list[Tensor], mu: float, finite: Tensor | None) -> Sequence[Tensor]:
        """Take the gradients into the momentum; what is to be orthogonalised, one for each."""
        for name, gradient in zip(names, gradients, strict=True):
            if name not in self._momentum:
                self._momentum[name] = torch.zeros_like(gradient)
        momenta = [self._momentum[name] for name in names]
        if finite is not None:
            # The mean of a momentum and itself is itself.
            gradients = [torch.where(finite, *pair) for pair in zip(gradients, momenta, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1.0 - mu)
        return torch._foreach_lerp(gradients, momenta, mu) if self._config.nesterov else momenta

    def _apply(self, weights: list[Tensor], updates: list[Tensor], decay: float, finite: Tensor | None) -> None:
        """Decay and move weights of one shape."""
        rows, columns = weights[0].shape
        scale = math.sqrt(max(1.0, rows / columns))
        directions = orthogonalise(torch.stack(updates), self._config.newton_schulz_steps, self._product_dtype)
        change = directions.to(weights[0].dtype) * scale
        if decay:
            stacked = torch.stack(weights)
            change += decay * (stacked * (stacked * change > 0) if self._config.cautious else stacked)
        if finite is not None:
            change *= finite
        torch._foreach_add_(weights, list(change.unbind()), alpha=-self._lr)


def _split(matrix: Tensor, rows: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The blocks of a matrix, as views; the matrix itself where it is not fused."""
    return matrix.split(rows) if rows else (matrix,)
