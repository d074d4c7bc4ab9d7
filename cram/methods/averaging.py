"""Averaging the weights over the last part of the budget."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from cram.config.training import AveragingConfig
from cram.errors import CramError
from cram.files.tensors import check_tensors
from cram.methods.method import Method


class Averaging(Method):
    """Makes the mean of the weights from `averaging.start` on the result: the plain mean, or an exponential one.

    Source: arXiv:1803.05407 (plain) and arXiv:2306.03241 (exponential), by the functions of `torch.optim.swa_utils`,
    changed: averaging begins at a share of the budget, and updates are counted on the host, because `AveragedModel`
    waits for the device at each update.

    Args:
        config: the keys `averaging.*`.
        seed: of the run; nothing is random here.
    """

    name = "averaging"

    def __init__(self, config: AveragingConfig, seed: int = 0) -> None:
        assert config.start is not None
        self._start = config.start
        self._average = get_swa_multi_avg_fn() if config.decay is None else get_ema_multi_avg_fn(config.decay)
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        """Take the weights into the average, once progress has reached the start; never waits for the device."""
        if progress < self._start:
            return
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        if self._count and weights.keys() == self._mean.keys():
            mean = [self._mean[name].to(weight.device) for name, weight in weights.items()]
            self._average(mean, list(weights.values()), self._count)
            self._mean = dict(zip(weights, mean, strict=True))
        else:
            # The first weights, or those of a model that has grown: nothing can be averaged with another shape.
            self._mean, self._count = {name: weight.clone() for name, weight in weights.items()}, 0
        self._count += 1

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Replace the weights by their average."""
        for name, weight in model.named_parameters():
            if self._count:
                weight.copy_(self._mean[name])

    def state_tensors(self) -> dict[str, Tensor]:
        """The average of each parameter by its name, and `count`, the number of updates in it."""
        return {**self._mean, "count": torch.tensor(self._count)} if self._count else {}

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: naming a tensor that does not fit the model.
        """
        if tensors:
            check_tensors(tensors, {**dict(model.named_parameters()), "count": torch.tensor(0)})
            if tensors["count"] < 1:
                raise CramError(f"the tensor count is {int(tensors['count'])}, and an average has 1 update or more.")
        self._mean = {name: value for name, value in tensors.items() if name != "count"}
        self._count = int(tensors["count"]) if tensors else 0

    def step_back(self, model: nn.Module, progress: float) -> None:
        """Forget the average where averaging has not begun at this progress of the longer budget."""
        if progress < self._start:
            self.load_state_tensors({}, model)

    def values(self, progress: float) -> dict[str, str]:
        """Describe whether averaging has begun at some progress."""
        return {"averaging": "begun" if progress >= self._start else "not begun"}
