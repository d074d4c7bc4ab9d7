"""Sophia-G: a momentum divided by an estimate of the curvature, clipped for each weight."""

import torch
from torch import Tensor

from cram.config.optimizer import OptimizerConfig
from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer

TINY = 1e-15  # added to the curvature, as published


class Sophia(Optimizer):
    """Newton's method with a diagonal curvature from now and then, and a step of at most the learning rate.

        m <- beta1 m + (1 - beta1) g
        h <- beta2 h + (1 - beta2) n s^2, at every `interval`-th update
        W <- W - lr (sign(m) min(|m| / (rho h + 1e-15), 1) + decay W)

    s is the gradient of the mean loss of n predicted tokens whose labels are drawn from the model's own predictions:
    the Gauss-Newton-Bartlett estimate. The pass for it is charged.

    Source: arXiv:2305.14342, algorithm 3 with the estimator of algorithm 2. Changed: n counts the predicted tokens of
    the estimate, so that h does not depend on its size; the published code multiplies by all tokens of a training
    batch. The rho of 0.01 in arXiv:2307.06440, with 196,608 tokens of a batch and 14,746 predicted tokens of an
    estimate, is therefore 0.13 here, the default.
    """

    def __init__(self, groups: list[ParameterGroup], config: OptimizerConfig) -> None:
        super().__init__(groups, config)
        self.curvature_interval, self.curvature_rows = config.sophia.interval, config.sophia.rows

    @torch.no_grad()
    def update(self, progress: float, finite: Tensor | None) -> None:
        """Update all parameters that have a gradient."""
        config = self.config.sophia
        for group in self.groups:
            weights, gradients, momenta = self.with_momenta(group, finite)
            if not weights:
                continue
            torch._foreach_lerp_(momenta, gradients, 1.0 - config.beta1)
            scales = torch._foreach_mul([self.state[weight]["curvature"] for weight in weights], config.rho)
            torch._foreach_add_(scales, TINY)
            updates = torch._foreach_div(torch._foreach_abs(momenta), scales)
            torch._foreach_clamp_max_(updates, 1.0)
            torch._foreach_mul_(updates, torch._foreach_sign(momenta))
            lr, decay = self.lr_of(group), group.weight_decay * self.decay(progress)
            self.move(weights, list(updates), lr, decay, finite)

    @torch.no_grad()
    def take_curvature(self, predicted: int, finite: Tensor) -> None:
        """Take the gradients of the mean loss of drawn labels into the curvature."""
        for group in self.groups:
            weights, gradients = self.with_gradients(group)
            if not weights:
                continue
            curvatures = [self.state[weight]["curvature"] for weight in weights]
            squares = torch._foreach_mul(torch._foreach_mul(gradients, gradients), float(predicted))
            estimates = [torch.where(finite, *pair) for pair in zip(squares, curvatures, strict=True)]
            torch._foreach_lerp_(curvatures, estimates, 1.0 - self.config.sophia.beta2)

    def first_state(self, group: ParameterGroup, parameter: Tensor) -> dict[str, Tensor]:
        """A momentum and a curvature of the parameter's shape."""
        return {"momentum": torch.zeros_like(parameter), "curvature": torch.zeros_like(parameter)}
