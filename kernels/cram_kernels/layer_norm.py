"""Layer normalisation over the last dimension, with an optional residual sum in front of it.

    s = x + residual
    y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias

Mean and variance (biased) are over the last dimension and computed in fp32 for half-precision inputs.

Source: arXiv:1607.06450 eq. 4, changed: the residual sum of a pre-norm block may be part of the call.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def layer_norm_reference(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the last dimension of x (..., width); returns x's shape and dtype."""
    with torch.autocast(x.device.type, enabled=False):
        # torch's CPU kernel takes half-precision x beside fp32 weights and computes in fp32; other devices do not.
        if x.device.type == "cpu" and weight is not None and (bias is None or bias.dtype == weight.dtype):
            mixed = x.dtype in (torch.bfloat16, torch.float16) and weight.dtype == torch.float32
            if mixed or weight.dtype == x.dtype:
                return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, bias = (None if part is None else part.to(wide) for part in (weight, bias))
        return F.layer_norm(x.to(wide), x.shape[-1:], weight, bias, eps).to(x.dtype)


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    residual: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer-normalise the last dimension.

    Args:
        x: (..., width), any floating dtype.
        weight: (width) gain, or None for 1.
        bias: (width) shift, or None for 0.
        eps: added to the variance.
        residual: tensor that broadcasts against x and is added to it first.

    Returns:
        y (..., width) in the dtype of what was normalised, also under autocast. With `residual`, the pair
        (y, s) of the normalised tensor and the sum s = x + residual.
    """
    if residual is None:
        return layer_norm_reference(x, weight, bias, eps)
    total = x + residual
    return layer_norm_reference(total, weight, bias, eps), total
