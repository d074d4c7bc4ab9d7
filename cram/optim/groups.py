"""Parameter groups, decided by the type of the module that owns a parameter, never by its name."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cram.config.training import OptimizerConfig


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, fused: Mapping[Tensor, tuple[int, ...]] | None = None
) -> list[dict[str, Any]]:
    """Split the parameters in three: `matrices` (decayed), `embeddings` and `gains` (neither decayed).

    A tied parameter belongs to the module that comes first, as in `model.parameters()`. Each group
    carries `name`, `peak_lr`, the `names` of its parameters and their `blocks` beside the keys torch reads.
    `fused` has the rows of each block of a weight that is several matrices in one; () are the blocks of all others.
    """
    matrices = config.muon if config.kind == "muon" else config
    embedding_lr = config.lr if config.embedding_lr is None else config.embedding_lr
    groups: dict[str, dict[str, Any]] = {
        "matrices": {"peak_lr": matrices.lr, "weight_decay": matrices.weight_decay},
        "embeddings": {"peak_lr": embedding_lr, "weight_decay": 0.0},
        "gains": {"peak_lr": config.lr, "weight_decay": 0.0},
    }
    owners: dict[nn.Parameter, nn.Module] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, module)
    for name, parameter in model.named_parameters():
        group = groups[_group_name(owners[parameter], parameter)]
        group.setdefault("params", []).append(parameter)
        group.setdefault("names", []).append(name)
        group.setdefault("blocks", []).append((fused or {}).get(parameter, ()))
    return [{"name": name, "lr": 0.0, **group} for name, group in groups.items() if "params" in group]


def _group_name(owner: nn.Module, parameter: nn.Parameter) -> str:
    if isinstance(owner, nn.Embedding):
        return "embeddings"
    return "matrices" if isinstance(owner, nn.Linear) and parameter.ndim == 2 else "gains"
