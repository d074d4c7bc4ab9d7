"""Softmax over the last dimension, scaled and masked.

    p_j = exp(scale * x_j - max) / sum_k exp(scale * x_k - max)        over the kept positions
    dx_j = scale * p_j * (dp_j - sum_k dp_k p_k)

computed in fp32 for half-precision inputs. Only p is kept for the backward pass: where it is 0, by the mask,
so is the gradient.

Source: arXiv:1706.03762 eq. 1, changed: a row with no kept position gives zeros instead of NaN.
"""

from typing import Any

import torch
from torch import Tensor


def softmax_reference(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Softmax of scale * x (..., n) over the kept positions; returns x's dtype. Has no gradient of its own."""
    # torch's half-precision softmax is fp32 inside, but a scaled x would be rounded on the way to it.
    scores = x if scale == 1.0 else x.to(torch.promote_types(x.dtype, torch.float32)) * scale
    if mask is None:
        return torch.softmax(scores, -1).to(x.dtype)
    shares = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1).to(x.dtype)
    return shares.masked_fill_(~mask.any(-1, keepdim=True), 0.0)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            shares = softmax_reference(x, scale, mask)
        ctx.save_for_backward(shares)
        ctx.scale = scale
        return shares

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (shares,) = ctx.saved_tensors
        grad_x = torch.ops.aten._softmax_backward_data(grad, shares, -1, shares.dtype)
        return (grad_x if ctx.scale == 1.0 else grad_x * ctx.scale), None, None


def softmax(x: Tensor, *, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Softmax over the last dimension.

    Args:
        x: (..., n), any floating dtype.
        scale: factor on x before the softmax.
        mask: bool, broadcastable to x, True = keep. A row masked False throughout gives zeros and zero
            gradient; kept values that are all -inf give NaN as torch's softmax does.

    Returns:
        (..., n) in x's dtype, also under autocast. Differentiable once.
    """
    return _Softmax.apply(x, scale, mask)
