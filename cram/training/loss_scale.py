"""The loss scale of fp16 training."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class LossScale:
    """The loss of fp16 training times a factor that grows until gradients overflow, so that small ones do not vanish.

    Torch's gradient scaler, told of the parameters by an optimizer that never steps.

    Source: arXiv:1710.03740 section 3.2.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type)  # type: ignore[attr-defined]
        self._named = torch.optim.SGD(parameters, lr=0.0)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the scaled loss."""
        self._scaler.scale(loss).backward()

    def unscale(self) -> None:
        """Bring the gradients to their true size."""
        self._scaler.unscale_(self._named)

    def update(self) -> None:
        """Grow, or shrink after an overflow; never waits for the device."""
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return self._scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self._scaler.load_state_dict(state)
