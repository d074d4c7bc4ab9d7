"""Our kernels in a stock model while it is fine-tuned, and no trace of them in what is saved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

import cram_kernels as ck


@contextmanager
def fused(model: nn.Module) -> Iterator[int]:
    """Inside, layer norms and the gated MLPs of ModernBERT compute by our kernels: the same but for rounding.

    A norm gives the dtype that it was given, where autocast would have widened it. Whatever else the model has stays
    as it is, and so does a ModernBERT whose activation is not GELU.

    Yields: how many modules compute otherwise.
    """
    chosen = [(module, forward) for module in model.modules() if (forward := _forward_of(module)) is not None]
    for module, forward in chosen:
        module.forward = forward  # stands before the class's
    try:
        yield len(chosen)
    finally:
        for module, _ in chosen:
            del module.forward


def _forward_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    from transformers.models.modernbert.modeling_modernbert import ModernBertMLP

    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1 and module.elementwise_affine:
        return _norm(module)
    if type(module) is ModernBertMLP and module.config.hidden_activation == "gelu":
        return _gated(module)
    return None


def _norm(module: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    return lambda hidden: ck.layer_norm(hidden, module.weight, module.bias, eps=module.eps)  # type: ignore[return-value]


def _gated(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda hidden: module.Wo(module.drop(ck.geglu(module.Wi(hidden))))  # type: ignore[operator]
