"""AdamW, the update rule for all parameters unless another one is chosen."""

from typing import Any

import torch
from torch import Tensor

from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer


class AdamW(Optimizer):
    """Torch's fused AdamW.

    Source: arXiv:1711.05101 (decoupled weight decay).

    Attributes:
        rule: torch's class.
    """

    rule: type[torch.optim.Adam] = torch.optim.AdamW

    def set_groups(self, groups: list[ParameterGroup]) -> None:
        """Give torch's optimizer the parameters, and the state that it shares with this one."""
        super().set_groups(groups)
        config = self.config
        self._torch = self.rule(
            [self._torch_group(group) for group in groups],
            lr=0.0,
            eps=config.eps,
            fused=True,
        )
        self._torch.state = self.state

    def _torch_group(self, group: ParameterGroup) -> dict[str, Any]:
        of_gains = group.name in ("gains", "biases") and self.config.gains_beta2 is not None
        beta2 = self.config.gains_beta2 if of_gains else self.config.beta2
        return {"params": group.parameters, "weight_decay": group.weight_decay, "betas": (self.config.beta1, beta2)}

    def update(self, progress: float, finite: Tensor | None) -> None:
        """Update with each group's learning rate, and the weight decay of `progress`."""
        for torch_group, group in zip(self._torch.param_groups, self.groups, strict=True):
            torch_group["lr"] = self.lr_of(group)
            torch_group["weight_decay"] = group.weight_decay * self.decay(progress)
        # Torch's gradient scaler tells a fused optimizer so: 1 leaves out the step, and does not count it.
        self._torch.found_inf = None if finite is None else 1.0 - finite.float()  # type: ignore[attr-defined]
        self._torch.step()

    def first_state(self, group: ParameterGroup, parameter: Tensor) -> dict[str, Tensor]:
        """The number of updates, fp32 scalar, and both moments, of the parameter's shape."""
        return {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
