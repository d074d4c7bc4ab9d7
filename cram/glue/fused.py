"""Run our kernels inside a stock model while it is fine-tuned, without a trace in what is saved."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

import cram_kernels as ck


@contextmanager
def fused(model: nn.Module) -> Iterator[int]:
    """In the `with` body, layer norms and the gated MLPs of ModernBERT use our kernels.

    Results differ by rounding only. A layer norm keeps the dtype of its input, where autocast would have widened it.
    All other modules stay as they are, and so does the MLP of a ModernBERT whose activation is not GELU.

    Yields:
        Number of modules that use our kernels.
    """
    replaced = [(module, forward) for module in model.modules() if (forward := _fused_forward(module)) is not None]
    with replaced_forwards(replaced) as count:
        yield count


@contextmanager
def replaced_forwards(replaced: Sequence[tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[int]:
    """In the `with` body, each of these modules computes the function beside it instead of its own forward pass.

    Yields:
        Number of the modules.
    """
    for module, forward in replaced:
        module.forward = forward  # an attribute of the instance comes before the method of its class
    try:
        yield len(replaced)
    finally:
        for module, _ in replaced:
            del module.forward


def _fused_forward(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    from transformers.models.modernbert.modeling_modernbert import ModernBertMLP

    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1 and module.elementwise_affine:
        return _layer_norm_forward(module)
    if type(module) is ModernBertMLP and module.config.hidden_activation == "gelu":
        return _gated_mlp_forward(module)
    return None


def _layer_norm_forward(module: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    return lambda hidden: ck.layer_norm(hidden, module.weight, module.bias, eps=module.eps)  # type: ignore[return-value]


def _gated_mlp_forward(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda hidden: module.Wo(module.drop(ck.geglu(module.Wi(hidden))))  # type: ignore[operator]
