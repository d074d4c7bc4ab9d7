"""The optimizers of fine-tuning: AdamW, or Muon for the hidden matrices; either with layer-wise learning rates."""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cram.config.optimizer import MuonConfig
from cram.errors import CramError
from cram.optim.whitening import orthogonalise, product_dtype

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.98), 1e-6, 0.0
# Root mean square of an update of AdamW, by which an orthogonal matrix is scaled to take the learning rates of AdamW.
ADAMW_RMS = 0.2
# Matrices that lie one below the other in a fused weight of ModernBERT, by the name of the layer.
FUSED = {"Wqkv": 3, "Wi": 2}

_LAYER = re.compile(r"\.(\d+)\.")


class MuonMatrices(torch.optim.Optimizer):
    """Muon for matrices, with learning rates of the size of AdamW's.

        m <- mu m + (1 - mu) g
        W <- W - lr 0.2 sqrt(max(rows, columns)) orthogonalise(mu m + (1 - mu) g)

    The momentum and the number of Newton-Schulz steps are the defaults of `optimizer.muon.*`. There is no weight decay.

    Source: arXiv:2502.16982 (the scale); changed: the matrices of a fused weight are orthogonalised one by one.

    Args:
        groups: param groups of torch, each with `params` (2-D weights), `parts` (the number of matrices in each
            weight, one below the other) and `lr`.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0})
        self._config = MuonConfig()
        first = self.param_groups[0]["params"][0]
        self._product_dtype = product_dtype(first.device, first.dtype)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all weights from their gradients; `closure` must be None."""
        assert closure is None
        for group in self.param_groups:
            stacks: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
            for weight, parts in zip(group["params"], group["parts"], strict=True):
                if weight.grad is not None:
                    for matrix, update in zip(weight.chunk(parts), self._ahead(weight).chunk(parts), strict=True):
                        matrices, updates = stacks.setdefault(matrix.shape, ([], []))
                        matrices.append(matrix)
                        updates.append(update)
            for shape, (matrices, updates) in stacks.items():
                steps = self._config.newton_schulz_steps
                directions = orthogonalise(torch.stack(updates), steps, self._product_dtype)
                scale = ADAMW_RMS * math.sqrt(max(shape))
                torch._foreach_add_(matrices, list(directions.unbind()), alpha=-group["lr"] * scale)

    def _ahead(self, weight: Tensor) -> Tensor:
        """Take the gradient of a weight into its momentum, and return Nesterov's mean of both."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1.0 - self._config.momentum)
        return weight.grad.lerp(state["momentum"], self._config.momentum)


def make_optimizers(
    model: nn.Module, name: str, learning_rate: float, layer_decay: float
) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a classifier, each parameter in one of them.

    Muon takes the weights of the linear layers except the last one, which is new; AdamW takes all else.

    Args:
        model: a sequence classifier of `transformers`, on its device.
        name: `adamw` or `muon`.
        learning_rate: the highest of the schedule, for the classifier on top.
        layer_decay: factor of the learning rate from each layer to the one below; 1 for one rate.

    Raises:
        CramError: for `layer_decay` with a class whose layers are not numbered.

    Source: arXiv:2003.10555 (layer-wise rates); changed: the uppermost layer is one step below the classifier, where
    ELECTRA's code has two.
    """
    depths = layer_depths(model) if layer_decay != 1.0 else dict.fromkeys(dict(model.named_parameters()), 0)
    top = max(depths.values())
    matrices = _hidden_matrices(model) if name == "muon" else {}
    adamw: dict[int, dict[str, Any]] = {}
    muon: dict[int, dict[str, Any]] = {}
    for parameter_name, parameter in model.named_parameters():
        depth = depths[parameter_name]
        groups = muon if parameter_name in matrices else adamw
        rate = learning_rate * layer_decay ** (top - depth)
        group = groups.setdefault(depth, {"params": [], "lr": rate})
        group["params"].append(parameter)
        if parameter_name in matrices:
            group.setdefault("parts", []).append(matrices[parameter_name])
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(list(adamw.values()), learning_rate, BETAS, EPS, WEIGHT_DECAY, fused=True)
    ]
    return [*optimizers, MuonMatrices(list(muon.values()))] if muon else optimizers


def layer_depths(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter, by name: 0 for embeddings, 1 for the first layer, layers + 1 for all above them.

    Raises:
        CramError: for a class whose layers are not numbered.
    """
    layers = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    depths = {}
    for name, _ in model.named_parameters():
        number = _LAYER.search(name)
        depths[name] = 0 if "embed" in name else int(number[1]) + 1 if number else layers + 1
    if set(depths.values()) != set(range(layers + 2)):
        raise CramError(f"layer_decay: the {layers} layers of {type(model).__name__} are not numbered. Leave it out.")
    return depths


def _hidden_matrices(model: nn.Module) -> dict[str, int]:
    """The weights of the linear layers except the last one, by name: the number of matrices in each."""
    outputs = model.config.num_labels  # type: ignore[union-attr]
    return {
        f"{name}.weight": FUSED.get(name.rpartition(".")[2], 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features != outputs
    }
