"""The contract of an update rule, and what all update rules share: names, the learning rate, the state on disk."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from cram.config.optimizer import OptimizerConfig
from cram.files.tensors import check_tensors, to_meta
from cram.machine.device import is_readable
from cram.optim.groups import ParameterGroup, parameter_groups
from cram.optim.schedule import Schedule, linear

# What a rule remembers of each parameter, as tensors by a short name.
State = defaultdict[Tensor, dict[str, Tensor]]


def decay_schedule(config: OptimizerConfig) -> Schedule:
    """Share of the weight decay that holds over progress: linear from 1 to `final_decay`."""
    return linear(1.0, config.final_decay)


class Optimizer:
    """An update rule for parameter groups whose state is a dictionary of named tensors.

    A new rule implements `update` and `first_state`, keeps what it remembers of a parameter in `self.state[parameter]`,
    and has one line in `OPTIMIZERS` of `cram.config.choices`. Keys of its own stand in a group of `OptimizerConfig`
    that bears the rule's name.

    Args:
        groups: the model's parameters, as `parameter_groups` makes them.
        config: the keys `optimizer.*`.
        state: the dictionary to keep the state in, given by a rule that leaves some of its groups to this one.

    Attributes:
        curvature_interval: updates between two estimates of the curvature; None for a rule that needs none.
        curvature_rows: rows of an estimate; None for those of a micro-batch.
        whole_matrices: whether the update of a matrix needs the whole matrix. Otherwise several ranks may each update
            some of its rows.
        moves_all: whether weights without a gradient may move too.
    """

    curvature_interval: int | None = None
    curvature_rows: int | None = None
    whole_matrices = False
    moves_all = False

    def __init__(self, groups: list[ParameterGroup], config: OptimizerConfig, state: State | None = None) -> None:
        self.kind = config.kind
        self.config = config
        self.decay = decay_schedule(config)
        self.state: State = defaultdict(dict) if state is None else state
        self._multiplier = self._others_multiplier = 0.0
        self.set_groups(groups)

    def set_groups(self, groups: list[ParameterGroup]) -> None:
        """Take parameters to update. A rule that keeps more than `groups` of them overrides this, and calls it first.

        It is called by the constructor, and again whenever the model has changed its shape.
        """
        self.groups = groups

    def regroup(self, model: nn.Module, inherited: Mapping[str, str]) -> None:
        """Take the parameters of a model that has changed its shape, and the states that are inherited.

        Args:
            inherited: for each parameter that keeps a state, its name and the name that the state had.
        """
        old = {name: self.state[parameter] for group in self.groups for name, parameter in group.named()}
        self.set_groups(parameter_groups(model, self.config))
        self.state.clear()
        for group in self.groups:
            for name, parameter in group.named():
                state = old.get(inherited.get(name, ""), {})
                if state:
                    self.state[parameter] = {entry: value.clone() for entry, value in state.items()}

    def overlap(self) -> AbstractContextManager[None]:
        """Give the context of the last backward pass of an update; of one rank it is an empty one."""
        return nullcontext()

    def collect(self, failed: bool = False) -> bool:
        """Finish the gradients of an update. One rank has nothing to do, and returns whether it has failed itself."""
        return failed

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """The gradients of the model's parameters that have one, in their order."""
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    def owned(self, model: nn.Module) -> list[nn.Parameter]:
        """All parameters of the model."""
        return list(model.parameters())

    def step(
        self, multiplier: float, progress: float, finite: Tensor | None = None, others: float | None = None
    ) -> None:
        """Update all parameters from their gradients; never waits for the device.

        Args:
            multiplier: the schedule's value; each group's learning rate is its `peak_lr` times this.
            progress: the spent share of the budget, for what the rule itself changes over the run.
            finite: bool scalar on the device. Where it is False, neither parameters nor state may change; None
                stands for True.
            others: the same as `multiplier` for all groups but `matrices`; None for no difference.
        """
        self._multiplier = multiplier
        self._others_multiplier = multiplier if others is None else others
        if finite is not None and is_readable(finite):
            # The host knows it without waiting, which saves each rule several passes over all of its tensors.
            if finite:
                self.update(progress, None)
        else:
            self.update(progress, finite)

    def update(self, progress: float, finite: Tensor | None) -> None:
        """Update all parameters that have a gradient, each group with `lr_of(group)`.

        Args:
            progress: the spent share of the budget.
            finite: as in `step`. It is None on a CPU, where the method is not called for an update that is not finite.
        """
        raise NotImplementedError

    def lr_of(self, group: ParameterGroup) -> float:
        """Learning rate of a group at this update."""
        return group.peak_lr * (self._multiplier if group.name == "matrices" else self._others_multiplier)

    def with_gradients(self, group: ParameterGroup) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters of a group that have a gradient, each with a state, and their gradients."""
        weights = [parameter for parameter in group.parameters if parameter.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = self.first_state(group, weight)
        return list(weights), [weight.grad for weight in weights if weight.grad is not None]

    def with_momenta(
        self, group: ParameterGroup, finite: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parameters of a group that have a gradient, their gradients, and their states of the name `momentum`.

        Where `finite` is False, each gradient is replaced by its momentum, so that no mean of the two changes.
        """
        weights, gradients = self.with_gradients(group)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        if finite is not None:
            gradients = [torch.where(finite, *pair) for pair in zip(gradients, momenta, strict=True)]
        return weights, gradients, momenta

    def move(
        self, weights: list[Tensor], updates: list[Tensor], lr: float, decay: float, finite: Tensor | None
    ) -> None:
        """Move weights against their updates and towards zero: W <- W - lr (update + decay W), where it is finite."""
        if not weights:
            return
        if decay:
            torch._foreach_add_(updates, weights, alpha=decay)
        if finite is not None:
            updates = [torch.where(finite, update, 0.0) for update in updates]
        torch._foreach_add_(weights, updates, alpha=-lr)

    def take_curvature(self, predicted: int, finite: Tensor) -> None:
        """Take an estimate of the curvature; only a rule with a `curvature_interval` is asked to.

        The gradients are those of the mean loss of labels that were drawn from the model's predictions.

        Args:
            predicted: number of these labels.
            finite: bool scalar on the device; where it is False, the state may not change.
        """
        raise NotImplementedError

    def first_state(self, group: ParameterGroup, parameter: Tensor) -> dict[str, Tensor]:
        """The state of a group's parameter before its first update: tensors by a short name, on its device.

        The parameter may be one without memory, on the device `meta`. A tensor that is not a scalar has as many rows as
        the parameter, row for row, so that some rows of a parameter can be updated without the others.
        """
        raise NotImplementedError

    def values(self, progress: float) -> dict[str, str]:
        """Describe what the rule changes over the run, at some progress: text by name, to show a user."""
        return {"weight decay": f"{self.decay(progress):.1%}"}

    def scheduled(self, progress: float) -> dict[str, float]:
        """Numbers that the rule itself changes over the run, at some progress, by name, for the metrics."""
        return {"weight_decay": self.groups[0].weight_decay * self.decay(progress)}

    def lr(self) -> dict[str, float]:
        """Learning rate of each group at the latest update, by the group's name; 0 before the first update."""
        return {group.name: self.lr_of(group) for group in self.groups}

    def held_bytes(self) -> int:
        """Count the bytes of the state."""
        return sum(int(value.nbytes) for state in self.state.values() for value in state.values())

    @property
    def begun(self) -> bool:
        """Whether any parameter has a state."""
        return any(self.state.values())

    def fill_state(self) -> None:
        """Give each parameter without a state the one before its first update."""
        for group in self.groups:
            for parameter in group.parameters:
                self.state[parameter] = self.state[parameter] or self.first_state(group, parameter)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state of all parameters, as tensors named `PARAMETER/ENTRY`; empty before the first update."""
        if not self.begun:
            return {}
        return {
            f"{name}/{entry}": value
            for group in self.groups
            for name, parameter in group.named()
            for entry, value in (self.state[parameter] or self.first_state(group, parameter)).items()
        }

    def expected_state(self) -> dict[str, Tensor]:
        """The names of `state_tensors` after an update, with tensors of the same shape and dtype on `meta`."""
        return {
            f"{name}/{entry}": value
            for group in self.groups
            for name, parameter in group.named()
            for entry, value in self.first_state(group, to_meta(parameter)).items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Replace the state by what `state_tensors` gave.

        Raises:
            CramError: naming the first tensor that is missing, not expected, or of another shape or dtype.
        """
        if tensors:
            check_tensors(tensors, self.expected_state())
        self.state.clear()
        parameters = {name: parameter for group in self.groups for name, parameter in group.named()}
        for name, tensor in tensors.items():
            parameter_name, _, entry = name.rpartition("/")
            parameter = parameters[parameter_name]
            self.state[parameter][entry] = tensor.to(parameter.device)
