"""Softmax over the last dimension, scaled and masked.

    p_j = exp(scale * x_j - max) / sum_k exp(scale * x_k - max)        over the kept positions
    dx_j = scale * p_j * (dp_j - sum_k dp_k p_k)

computed in fp32 for half-precision inputs. Only p is saved for the backward pass: where the mask makes p 0, the
gradient is 0 as well.

The kernels and their launchers are in `_softmax_kernels.py`.

Source: arXiv:1706.03762 eq. 1, changed: a row with no kept position gives zeros instead of NaN.
"""

from typing import Any

import torch
from torch import Tensor

from cram_kernels import _cpu_launchers
from cram_kernels._dispatch import (
    as_new,
    refuse_double_backward,
    register_autograd,
    register_op,
    use_cpu_kernels,
    use_triton,
)
from cram_kernels._softmax_kernels import launch_softmax_backward, launch_softmax_forward

# --- reference


def softmax_reference(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Compute the softmax of scale * x (..., n) over the kept positions, in the dtype of x."""
    # torch's softmax of half-precision x computes in fp32, but scale * x would be rounded before it.
    scores = x if scale == 1.0 else x.to(torch.promote_types(x.dtype, torch.float32)) * scale
    if mask is None:
        return as_new(torch.softmax(scores, -1).to(x.dtype))
    shares = as_new(torch.softmax(torch.where(mask, scores, float("-inf")), -1).to(x.dtype))
    row_has_kept = mask.any(-1, keepdim=True)
    # Most masks keep a position of every row, and then `shares` need not be written again. Only a CPU can look at the
    # mask without waiting for the device.
    if x.device.type == "cpu" and bool(row_has_kept.all()):
        return shares
    return shares.masked_fill_(~row_has_kept, 0.0)


def softmax_backward_reference(grad_shares: Tensor, shares: Tensor, scale: float) -> Tensor:
    """Compute the gradient of x, given the gradient of the result `shares`, both (..., n)."""
    grad_x = as_new(torch.ops.aten._softmax_backward_data(grad_shares, shares, -1, shares.dtype))
    return grad_x if scale == 1.0 else grad_x.mul_(scale)


# --- op, fake, autograd


def _forward(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    if use_triton(x):
        return launch_softmax_forward(x, scale, mask)
    return (_cpu_launchers.softmax_forward if use_cpu_kernels(x) else softmax_reference)(x, scale, mask)


def _backward(grad_shares: Tensor, shares: Tensor, scale: float) -> Tensor:
    if use_triton(grad_shares, shares):
        return launch_softmax_backward(grad_shares, shares, scale)
    run = _cpu_launchers.softmax_backward if use_cpu_kernels(grad_shares, shares) else softmax_backward_reference
    return run(grad_shares, shares, scale)


_op = register_op(
    "softmax(Tensor x, float scale, Tensor? mask) -> Tensor", _forward, lambda x, scale, mask: x.new_empty(x.shape)
)
_backward_op = register_op(
    "softmax_backward(Tensor grad_shares, Tensor shares, float scale) -> Tensor",
    _backward,
    lambda grad_shares, shares, scale: shares.new_empty(shares.shape),
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.set_materialize_grads(False)
    _, ctx.scale, _ = inputs
    ctx.save_for_backward(output)


def _autograd_backward(ctx: Any, grad_shares: Tensor | None) -> tuple[Tensor | None, None, None]:
    (shares,) = ctx.saved_tensors
    return (None if grad_shares is None else _backward_op(grad_shares, shares, ctx.scale)), None, None


register_autograd(_op, _autograd_backward, _setup_context)
refuse_double_backward(_backward_op)


# --- public


def softmax(x: Tensor, *, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Compute the softmax of scale * x over the last dimension. The result can be differentiated once.

    Args:
        x: (..., n), any floating dtype.
        scale: factor on x before the softmax.
        mask: bool, broadcastable to x, True = keep. A row whose mask is False everywhere gives zeros and zero gradient.
            A row whose kept values are all -inf gives NaN, as torch's softmax does.

    Returns:
        (..., n) in the dtype of x, also under autocast.

    Raises:
        TypeError: for a mask that is not bool.
        ValueError: for a mask that does not broadcast to x.
    """
    if x.ndim == 0:
        return softmax(x[None], scale=scale, mask=mask)[0]
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"the mask must be bool, True = keep, not {mask.dtype}")
        pairs = zip(reversed(mask.shape), reversed(x.shape), strict=False)
        if mask.ndim > x.ndim or any(mask_size not in (1, size) for mask_size, size in pairs):
            raise ValueError(f"the mask {tuple(mask.shape)} does not broadcast to x {tuple(x.shape)}")
    shares: Tensor = _op(x, scale, mask)
    return shares
