"""Parameter groups, decided by the type of the module that owns a parameter, never by its name."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from cram.config.optimizer import OptimizerConfig


@dataclass
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        name: `matrices`, `embeddings`, `gains` or `biases`.
        peak_lr: learning rate where the schedule is at 1.
        weight_decay: decoupled weight decay before it fades.
        names: the parameters' names in the model.
        parameters: the parameters themselves, in the same order.
        splits: rows of each matrix in a fused weight, in the same order; () for a weight that is a single matrix.
    """

    name: str
    peak_lr: float
    weight_decay: float
    names: list[str] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    splits: list[tuple[int, ...]] = field(default_factory=list)

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters with their names."""
        return zip(self.names, self.parameters, strict=True)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[ParameterGroup]:
    """Split the parameters into `matrices`, which are decayed, and `embeddings`, `gains` and `biases`, which are not.

    With `optimizer.decay_others`, embeddings and gains are decayed too. Biases belong to `gains` without it. Embeddings
    have their own decay with `optimizer.embedding_decay`.

    A tied parameter belongs to the module that comes first, as in `model.parameters()`. Groups without a parameter are
    left out; `matrices` is the first of the others. A linear layer whose weight holds several matrices, one below the
    other, has an attribute `splits` with the rows of each.
    """
    matrices = config.matrices()
    others_lr = matrices.lr if config.serves_all() else config.lr
    embedding_lr = others_lr if config.embedding_lr is None else config.embedding_lr
    decay = matrices.weight_decay if config.decay_others else 0.0
    embedding_decay = decay if config.embedding_decay is None else config.embedding_decay
    groups = {
        "matrices": ParameterGroup("matrices", matrices.lr, matrices.weight_decay),
        "embeddings": ParameterGroup("embeddings", embedding_lr, embedding_decay),
        "gains": ParameterGroup("gains", others_lr, decay),
        "biases": ParameterGroup("biases", others_lr, 0.0),
    }
    owners: dict[nn.Parameter, nn.Module] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, module)
    for name, parameter in model.named_parameters():
        owner = owners[parameter]
        group_name = _group_name(owner, parameter)
        is_bias = parameter is getattr(owner, "bias", None)
        group = groups["biases" if is_bias and config.decay_others else group_name]
        group.names.append(name)
        group.parameters.append(parameter)
        group.splits.append(getattr(owner, "splits", ()) if parameter.ndim == 2 else ())
    return [group for group in groups.values() if group.parameters]


def _group_name(owner: nn.Module, parameter: nn.Parameter) -> str:
    if isinstance(owner, nn.Embedding):
        return "embeddings"
    return "matrices" if isinstance(owner, nn.Linear) and parameter.ndim == 2 else "gains"
