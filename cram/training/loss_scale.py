"""The loss scale of fp16 training."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class LossScale:
    """A factor of the loss in fp16 training, without which small gradients would be rounded to zero.

    The factor grows until gradients overflow, and shrinks then. This is torch's gradient scaler; it knows the
    parameters from an optimizer, so it is given one that never steps.

    Source: arXiv:1710.03740 section 3.2.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type)
        self._optimizer = torch.optim.SGD(parameters, lr=0.0)

    def watch(self, parameters: Iterable[nn.Parameter]) -> None:
        """Take the parameters of a model that has changed its shape."""
        self._optimizer = torch.optim.SGD(parameters, lr=0.0)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss."""
        self._scaler.scale(loss).backward()

    def factor(self, device: torch.device) -> torch.Tensor:
        """Give the factor, an fp32 scalar on the device, without waiting for the device."""
        scaled: torch.Tensor = self._scaler.scale(torch.ones((), device=device))
        return scaled

    def unscale(self) -> None:
        """Divide the gradients by the factor."""
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
