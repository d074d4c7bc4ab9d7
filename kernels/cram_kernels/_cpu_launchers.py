"""Launchers of the C++ kernels for CPU tensors: they allocate what an op returns and call the kernels in `cpu/`.

Each function computes what the reference of its op computes, for tensors that `use_cpu_kernels` accepts.
"""

import torch
from torch import Tensor

from cram_kernels._cpu import call, dtype_code
from cram_kernels._cross_entropy_kernels import LossTerms
from cram_kernels._launch import as_rows
from cram_kernels._layer_norm_kernels import allocate_layer_norm
from cram_kernels.cross_entropy import split_target


def _pass_rows(x: Tensor | None) -> tuple[Tensor | None, int]:
    """Return a tensor as contiguous rows and the number of its dtype, as kernels take both."""
    return (None, 0) if x is None else (x.contiguous(), dtype_code(x.dtype))


def _widen(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.to(torch.float32).contiguous()


def layer_norm_forward(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Compute y, s, mean and rstd, as `layer_norm_reference` does."""
    y, s, mean, rstd = allocate_layer_norm(x, residual)
    inputs = *_pass_rows(x), *_pass_rows(residual), _widen(weight), _widen(bias)
    call("layer_norm_forward", *inputs, y, s, dtype_code(y.dtype), mean, rstd, eps, len(mean), x.shape[-1])
    return y, s, mean, rstd


def layer_norm_backward(
    grad_y: Tensor,
    grad_sum: Tensor | None,
    s: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    needs_grad: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the gradients of s, weight and bias; those of weight and bias in fp32, None where not needed."""
    width = s.shape[-1]
    grad_s = s.new_empty(s.shape)
    sums = [s.new_zeros((torch.get_num_threads(), width), dtype=torch.float32) if need else None for need in needs_grad]
    inputs = *_pass_rows(grad_y), *_pass_rows(grad_sum), *_pass_rows(s), _widen(weight), mean, rstd
    call("layer_norm_backward", *inputs, grad_s, *sums, len(mean), width)
    grad_weight, grad_bias = (None if part is None else part.sum(0) for part in sums)
    return grad_s, grad_weight, grad_bias


def gated_forward(x: Tensor, silu: bool) -> Tensor:
    """Compute act(first half) * second half, (..., H), of x (..., 2H)."""
    rows, half = as_rows(x), x.shape[-1] // 2
    y = x.new_empty((*x.shape[:-1], half))
    call("gated_forward", rows, y, dtype_code(x.dtype), int(silu), rows.stride(0), len(rows), half)
    return y


def gated_backward(grad_y: Tensor, x: Tensor, silu: bool) -> Tensor:
    """Compute the gradient of x (..., 2H), given that of the product, (..., H), in the same dtype."""
    rows, grad_rows = as_rows(x), as_rows(grad_y)
    grad_x = x.new_empty(x.shape)
    strides = grad_rows.stride(0), rows.stride(0)
    dtype = dtype_code(x.dtype)
    call("gated_backward", grad_rows, rows, grad_x, dtype, int(silu), *strides, len(rows), x.shape[-1] // 2)
    return grad_x


def rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Rotate x (..., tokens, heads, head_dim) by sign * the angle of cos, sin (..., tokens, head_dim / 2)."""
    rotated = x.new_empty(x.shape)
    heads = _as_rows_of(x, 3)
    angles = [_as_rows_of(part.to(torch.float32).expand(*x.shape[:-2], part.shape[-1]), 2) for part in (cos, sin)]
    strides = torch.tensor([stride for part in (heads, *angles) for stride in part.stride()[:-1]])
    lead, tokens, count, head_dim = heads.shape
    call("rope", heads, rotated, *angles, dtype_code(x.dtype), strides, lead, tokens, count, head_dim // 2, sign)
    return rotated


def _as_rows_of(x: Tensor, trailing: int) -> Tensor:
    """Fold all but the last `trailing` dimensions of x into one, the last contiguous: a view where strides allow it."""
    folded = x.reshape(x.shape[:-trailing].numel(), *x.shape[-trailing:])
    return folded if folded.stride(-1) == 1 or folded.shape[-1] == 1 else folded.contiguous()


def softmax_forward(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Compute the softmax of scale * x (..., n) over the kept positions, in the dtype of x."""
    shares = x.new_empty(x.shape)
    outer = x.shape[:-1]
    sizes = torch.tensor([outer[:-2].numel(), *([1, 1, *outer])[-2:]])
    strides = None
    if mask is not None:
        mask = mask.expand(x.shape).reshape(*sizes.tolist(), x.shape[-1])
        strides = torch.tensor(mask.stride())
    call("softmax_forward", x.contiguous(), shares, dtype_code(x.dtype), scale, mask, strides, sizes, x.shape[-1])
    return shares


def softmax_backward(grad_shares: Tensor, shares: Tensor, scale: float) -> Tensor:
    """Compute the gradient of x, given the gradient of the result `shares`, both (..., n)."""
    grad_x = shares.new_empty(shares.shape)
    width = shares.shape[-1]
    inputs = grad_shares.contiguous(), shares.contiguous(), grad_x, dtype_code(shares.dtype), scale
    call("softmax_backward", *inputs, shares.shape[:-1].numel(), width)
    return grad_x


def turn_into_gradient(logits: Tensor, target: Tensor, terms: LossTerms) -> Tensor:
    """Compute the losses (rows) of logits (rows, classes), and turn the logits into the gradient of each row's loss.

    Raises:
        IndexError: for a target that is not a class.
    """
    split_target(target, logits.shape[1], terms.ignore_index)
    losses = logits.new_empty(target.shape, dtype=torch.float32)
    sizes = len(logits), logits.shape[1]
    call("cross_entropy_in_place", logits, dtype_code(logits.dtype), logits.stride(0), target, losses, *terms, *sizes)
    return losses
