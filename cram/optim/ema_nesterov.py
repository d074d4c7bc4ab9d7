"""EMA-Nesterov: gradients are taken ahead of the weights, in the direction of their mean movement."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from cram.config.optimizer import EmaNesterovConfig
from cram.files.tensors import check_tensors, to_meta
from cram.machine.device import is_readable
from cram.optim.groups import ParameterGroup
from cram.optim.optimizer import Optimizer

ENTRY = "movement"


class EmaNesterov:
    """Wraps an update rule A, whose weights x it moves ahead by a mean m of their past movements.

        y <- x + b m
        x' <- A(y), with the gradient at y
        m <- decay m + (1 - decay) (x' - x)

    b is `lookahead` times the multiplier of the learning rate while progress is between `start` and `end`, else 0. The
    model holds y, so that evaluations, checkpoints and methods see the weights that are ahead. From `end` on these are
    x, and m is not needed any more.

    Source: arXiv:2605.25395, as its authors run it in modded-nanogpt's optimizer track; changed: b is that of the
    update before, which leaves y in the model, and `decay m + (1 - decay) b m` is kept instead of m and a copy of x.

    Args:
        inner: the rule A, for all parameters.
        config: the keys `optimizer.ema_nesterov.*`, with a `lookahead`.

    Attributes:
        kind: that of the rule, as are the attributes that follow.
        curvature_interval: updates between two estimates of the curvature, or None.
        curvature_rows: rows of an estimate, or None.
        whole_matrices: whether the update of a matrix needs the whole matrix.
        moves_all: weights without a gradient are moved ahead too.
    """

    moves_all = True

    def __init__(self, inner: Optimizer, config: EmaNesterovConfig) -> None:
        self.kind = inner.kind
        self.curvature_interval, self.curvature_rows = inner.curvature_interval, inner.curvature_rows
        self.whole_matrices = inner.whole_matrices
        self._inner, self._config = inner, config
        self._movements: dict[str, Tensor] = {}

    def overlap(self) -> AbstractContextManager[None]:
        """Give the context of the last backward pass of an update; see `Optimizer.overlap`."""
        return self._inner.overlap()

    def collect(self, failed: bool = False) -> bool:
        """Finish the gradients of an update; see `Optimizer.collect`."""
        return self._inner.collect(failed)

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """The gradients that the rule takes."""
        return self._inner.gradients(model)

    def owned(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters that the rule updates."""
        return self._inner.owned(model)

    @torch.no_grad()
    def step(
        self, multiplier: float, progress: float, finite: Tensor | None = None, others: float | None = None
    ) -> None:
        """Update the weights by the rule from where they are, then move them ahead; see `Optimizer.step`."""
        config = self._config
        if finite is not None and is_readable(finite):
            if not finite:
                return
            finite = None
        parameters = self._parameters()
        if progress >= config.end or not parameters:
            self._inner.step(multiplier, progress, finite, others)
            return
        if not self._movements:
            self._movements = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        weights: list[Tensor] = list(parameters.values())
        movements = list(self._movements.values())
        moved = [weight.detach().clone() for weight in weights]
        self._inner.step(multiplier, progress, finite, others)
        # The movement is a difference: exactly zero, and not NaN, after a step that was not finite.
        torch._foreach_sub_(moved, weights)
        torch._foreach_add_(movements, moved, alpha=config.decay - 1.0)
        ahead = config.lookahead * multiplier if config.lookahead and progress >= config.start else 0.0
        if ahead:
            _move_ahead(weights, movements, ahead, finite)
        kept = config.decay + (1.0 - config.decay) * ahead
        if finite is None:
            torch._foreach_mul_(movements, kept)
        else:
            torch._foreach_mul_(movements, torch.where(finite, kept, 1.0))

    def take_curvature(self, predicted: int, finite: Tensor) -> None:
        """Take an estimate of the curvature; see `Optimizer.take_curvature`."""
        self._inner.take_curvature(predicted, finite)

    def lr(self) -> dict[str, float]:
        """Learning rate of each group at the latest update."""
        return self._inner.lr()

    def values(self, progress: float) -> dict[str, str]:
        """Describe what the rule changes over the run, at some progress."""
        return self._inner.values(progress)

    def scheduled(self, progress: float) -> dict[str, float]:
        """Numbers that the rule changes over the run, at some progress."""
        return self._inner.scheduled(progress)

    def set_groups(self, groups: list[ParameterGroup]) -> None:
        """Take parameters to update; see `Optimizer.set_groups`. The state must be empty."""
        self._inner.set_groups(groups)

    def regroup(self, model: nn.Module, inherited: Mapping[str, str]) -> None:
        """Take a model that has changed its shape; a parameter without an inherited state has not moved yet."""
        old = self._movements
        self._inner.regroup(model, inherited)
        self._movements = {}
        for name, parameter in self._parameters().items() if old else ():
            movement = old.get(inherited.get(name, ""))
            self._movements[name] = torch.zeros_like(parameter) if movement is None else movement.clone()

    def held_bytes(self) -> int:
        """Count the bytes of the state of the rule and of the movements."""
        return self._inner.held_bytes() + sum(movement.nbytes for movement in self._movements.values())

    @property
    def begun(self) -> bool:
        """Whether any parameter has a state."""
        return self._inner.begun

    def fill_state(self) -> None:
        """Give each parameter without a state the one before its first update; it has not moved yet."""
        self._inner.fill_state()
        if not self._movements:
            self._movements = {name: torch.zeros_like(parameter) for name, parameter in self._parameters().items()}

    def expected_state(self) -> dict[str, Tensor]:
        """The names of `state_tensors` after an update, with tensors of the same shape and dtype on `meta`."""
        return self._inner.expected_state() | self._expected_movements()

    def _expected_movements(self) -> dict[str, Tensor]:
        return {f"{name}/{ENTRY}": to_meta(parameter) for name, parameter in self._parameters().items()}

    def state_tensors(self) -> dict[str, Tensor]:
        """The state of the rule, and `PARAMETER/movement` for each parameter, zero where no update was ahead."""
        if self.begun:
            self.fill_state()
        return self._inner.state_tensors() | {f"{name}/{ENTRY}": value for name, value in self._movements.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Replace the state by what `state_tensors` gave.

        Raises:
            CramError: naming the first tensor that is missing, not expected, or of another shape or dtype.
        """
        own = {name: tensor for name, tensor in tensors.items() if name.rpartition("/")[2] == ENTRY}
        self._inner.load_state_tensors({name: tensor for name, tensor in tensors.items() if name not in own})
        parameters = self._parameters()
        if tensors:
            check_tensors(own, self._expected_movements())
        self._movements = {
            name: own[f"{name}/{ENTRY}"].to(parameter.device) for name, parameter in parameters.items() if tensors
        }

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: parameter for group in self._inner.groups for name, parameter in group.named()}


def _move_ahead(weights: list[Tensor], movements: list[Tensor], ahead: float, finite: Tensor | None) -> None:
    if finite is None:
        torch._foreach_add_(weights, movements, alpha=ahead)
    else:
        torch._foreach_add_(weights, list(torch._foreach_mul(movements, torch.where(finite, ahead, 0.0))))
