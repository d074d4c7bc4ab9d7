"""AdamW."""

from typing import Any

import torch

from cram.config.training import OptimizerConfig
from cram.files.tensors import check_tensors, to_meta
from cram.optim.schedule import Schedule, linear


def decay_schedule(config: OptimizerConfig) -> Schedule:
    """Share of the weight decay that holds over progress: linear from 1 to `final_decay`."""
    return linear(1.0, config.final_decay)


class AdamW:
    """Torch's fused AdamW over named parameter groups, with a state of named tensors.

    Source: arXiv:1711.05101 (decoupled weight decay).
    """

    def __init__(self, groups: list[dict[str, Any]], config: OptimizerConfig) -> None:
        betas = (config.beta1, config.beta2)
        self._decay = decay_schedule(config)
        groups = [{**group, "full_decay": group["weight_decay"]} for group in groups]
        self._torch = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)

    def step(self, multiplier: float, progress: float, finite: torch.Tensor | None = None) -> None:
        """Update with each group's peak learning rate times `multiplier`; never waits for the device.

        The decay is that of `progress`. Where `finite`, a bool scalar on the device, is False, nothing changes.
        """
        for group in self._torch.param_groups:
            group["lr"] = group["peak_lr"] * multiplier
            group["weight_decay"] = group["full_decay"] * self._decay(progress)
        # What torch's gradient scaler tells a fused optimizer: 1 leaves out the step, its count included.
        self._torch.found_inf = None if finite is None else 1.0 - finite.float()  # type: ignore[attr-defined]
        self._torch.step()

    def lr(self) -> float:
        """The learning rate of the first group at the latest update."""
        return float(self._torch.param_groups[0]["lr"])

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Moments and step counts as tensors named `PARAMETER/ENTRY`, of all parameters; none before an update."""
        if not any(self._torch.state.values()):
            return {}
        return {
            f"{name}/{entry}": value
            for name, parameter in self._named()
            for entry, value in (self._torch.state[parameter] or _at_first(parameter)).items()
        }

    def wanted_tensors(self) -> dict[str, torch.Tensor]:
        """What `state_tensors` gives after an update, without values."""
        return {
            f"{name}/{entry}": to_meta(value)
            for name, parameter in self._named()
            for entry, value in _at_first(to_meta(parameter)).items()
        }

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `state_tensors` gave. Errors: CramError naming a tensor that does not fit."""
        if tensors:
            check_tensors(tensors, self.wanted_tensors())
        entries: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            entries.setdefault(name, {})[entry] = value
        for name, parameter in self._named():
            self._torch.state[parameter] = {
                entry: value.to(parameter.device) for entry, value in entries.get(name, {}).items()
            }

    def _named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [
            pair for group in self._torch.param_groups for pair in zip(group["names"], group["params"], strict=True)
        ]


def _at_first(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state of a parameter that has not been updated."""
    return {
        "step": torch.zeros((), device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }
