"""The loss scale of fp16 training."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from cram.distributed.ranks import ALONE, Ranks


class LossScale:
    """A factor of the loss in fp16 training, without which small gradients would be rounded to zero.

    The factor grows until gradients overflow, and shrinks then. This is torch's gradient scaler; it knows the
    parameters from an optimizer, so it is given one that never steps.

    Source: arXiv:1710.03740 section 3.2.

    Args:
        parameters: those that have the gradients to be divided, which are `OptimizerProtocol.owned`.
        device: of the parameters.
        ranks: those that train the model; the factor is the same on all of them.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device, ranks: Ranks = ALONE) -> None:
        self._device = device
        self._scaler = torch.amp.GradScaler(device.type) if ranks.alone else _SharedScaler(device, ranks)
        self.watch(parameters)

    def watch(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take the parameters of a model that has changed its shape."""
        # As a group, because a rank may own no parameter at all, which torch accepts of a group only.
        self._optimizer = torch.optim.SGD([{"params": list(parameters)}], lr=0.0)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss."""
        self._scaler.scale(loss).backward()

    def factor(self, device: torch.device) -> torch.Tensor:
        """Give the factor, an fp32 scalar on the device, without waiting for the device."""
        scaled: torch.Tensor = self._scaler.scale(torch.ones((), device=device))
        return scaled

    def unscale(self) -> None:
        """Divide the gradients by the factor."""
        self.factor(self._device)  # exists from its first use on, and a rank without rows has scaled no loss
        self._scaler.unscale_(self._optimizer)

    def update(self) -> None:
        """Let the factor grow, or shrink after an overflow, without waiting for the device."""
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """Give the factor and its counters as JSON."""
        return self._scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self._scaler.load_state_dict(state)


class _SharedScaler(torch.amp.GradScaler):
    """Torch's gradient scaler, which also shrinks the factor where another rank's gradients overflow.

    The ranks have different gradients here: each has the sums of its own pieces.
    """

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        super().__init__(device.type)
        self._ranks = ranks

    def _unscale_grads_(
        self, optimizer: torch.optim.Optimizer, inv_scale: torch.Tensor, found_inf: torch.Tensor, allow_fp16: bool
    ) -> dict[torch.device, torch.Tensor]:
        found = super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
        self._ranks.sum(found.setdefault(found_inf.device, found_inf))
        return found
