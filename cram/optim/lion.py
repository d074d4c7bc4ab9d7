"""Lion: every weight moves by the sign of an interpolated momentum."""

import torch
from torch import Tensor

from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer


class Lion(Optimizer):
    """Moves every weight by the learning rate, in the direction of the sign, with decoupled weight decay.

        W <- W - lr (sign(beta1 m + (1 - beta1) g) + decay W)
        m <- beta2 m + (1 - beta2) g

    Source: arXiv:2302.06675, algorithm 2; changed: nothing.
    """

    @torch.no_grad()
    def update(self, progress: float, finite: Tensor | None) -> None:
        """Update all parameters that have a gradient."""
        config = self.config.lion
        for group in self.groups:
            lr = self.lr_of(group)
            weights, gradients, momenta = self.with_momenta(group, finite)
            if not weights:
                continue
            updates = torch._foreach_sign(torch._foreach_lerp(momenta, gradients, 1.0 - config.beta1))
            torch._foreach_lerp_(momenta, gradients, 1.0 - config.beta2)
            self.move(weights, list(updates), lr, group.weight_decay * self.decay(progress), finite)

    def first_state(self, group: ParameterGroup, parameter: Tensor) -> dict[str, Tensor]:
        """A momentum of the parameter's shape."""
        return {"momentum": torch.zeros_like(parameter)}
