"""Averaging the weights over the last part of the budget."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from cram.config import AveragingConfig
from cram.errors import CramError
from cram.methods.method import Method


class Averaging(Method):
    """The mean of the weights after each update from `start` on, or their exponential mean, as the result.

    Source: arXiv:1803.05407 (all alike) and arXiv:2306.03241 (of the latest), by `torch.optim.swa_utils`, changed:
    driven by the spent share of the budget.
    Errors: CramError for a share or decay that is none.
    """

    name = "averaging"

    def __init__(self, config: AveragingConfig) -> None:
        assert config.start is not None
        if not 0.0 <= config.start < 1.0:
            raise CramError(f"averaging.start={config.start} is no share of the budget: give 0 or more, below 1.")
        if config.decay is not None and not 0.0 < config.decay < 1.0:
            raise CramError(f"averaging.decay={config.decay} is no decay: give more than 0, below 1.")
        self._start, self._decay = config.start, config.decay
        self._average: AveragedModel | None = None
        self._loaded: dict[str, Tensor] = {}

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Take the weights into the average, from the start on."""
        if progress >= self._start:
            self._of(model).update_parameters(model)

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Put the average in the weights' place."""
        if self._average is not None or self._loaded:
            for weight, mean in zip(model.parameters(), self._of(model).module.parameters(), strict=True):
                weight.copy_(mean)

    def state_tensors(self) -> dict[str, Tensor]:
        """The average, and how many updates are in it."""
        return {} if self._average is None else dict(self._average.state_dict())

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave."""
        self._average, self._loaded = None, tensors

    def _of(self, model: nn.Module) -> AveragedModel:
        if self._average is None:
            mean = get_swa_multi_avg_fn() if self._decay is None else get_ema_multi_avg_fn(self._decay)
            self._average = AveragedModel(model, multi_avg_fn=mean)
            if self._loaded:
                self._average.load_state_dict(self._loaded)
                self._loaded = {}
        return self._average
