"""Layer normalisation over the last dimension, with an optional residual sum in front of it.

    s = x + residual
    y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias

The mean and the biased variance are taken over the last dimension, in fp32 for half-precision inputs. The backward
pass, with n the normalised s, rstd = 1 / sqrt(var(s) + eps) and g = dy * weight:

    ds = (g - mean(g) - n * mean(g * n)) * rstd + gradient of the returned sum
    dweight = sum over rows of dy * n,   dbias = sum over rows of dy

The kernels and their launchers are in `_layer_norm_kernels.py`.

Source: arXiv:1607.06450 eq. 4, changed: the residual sum of a pre-norm block may be part of the call.
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
from cram_kernels._layer_norm_kernels import (
    allocate_layer_norm,
    launch_layer_norm_backward,
    launch_layer_norm_forward,
)

_aten = torch.ops.aten

# Up to this many standard deviations of its row, the rounding of a mean in fp32 does not count: it changes a result by
# at most 8 * 2^-24 = 5e-7.
_MOST_MEAN = 8.0


# --- reference


def layer_norm_reference(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Compute the forward pass with torch.

    Returns:
        y (..., width) in the dtype of s; s (..., width), or None without a residual; mean and rstd (rows), in fp32 or
        wider.
    """
    s = x if residual is None else as_new(x + residual)
    # On a CPU, torch's kernel computes in fp32 if s is in half precision and the weight in fp32. Without a weight, or
    # with one in half precision, it would also keep the mean in half precision, so s is widened first.
    half = s.dtype in (torch.bfloat16, torch.float16)
    takes_half = s.device.type == "cpu" and half and weight is not None
    wide = torch.promote_types(s.dtype, torch.float32)
    wide_s = s if takes_half else s.to(wide)
    parameters = s.shape[-1:], _cast(weight, wide), _cast(bias, wide), eps
    y, mean, rstd = _aten.native_layer_norm(wide_s, *parameters)
    if _mean_is_coarse(s, mean, rstd):
        y, shift, rstd = _aten.native_layer_norm(wide_s - mean, *parameters)
        mean = mean + shift
    return as_new(y.to(s.dtype)), None if residual is None else s, mean.flatten(), rstd.flatten()


def layer_norm_backward_reference(
    grad_y: Tensor,
    grad_sum: Tensor | None,
    s: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    parameters_need_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the gradients of s, weight and bias with torch; the latter two are None where they are not needed.

    All tensors are widened first. From half-precision s, torch's CPU kernel would also sum the gradients of weight and
    bias over the rows in half precision: they are wrong by 9 to 13% at 8192 rows of bf16.
    """
    wide_s = s.to(torch.promote_types(s.dtype, torch.float32))
    wide = wide_s.dtype
    mean, rstd = (part.view(*s.shape[:-1], 1) for part in (mean, rstd))
    if _mean_is_coarse(s, mean, rstd):
        wide_s = wide_s - mean
        mean = wide_s.mean(-1, keepdim=True)
    grad_s, grad_weight, grad_bias = _aten.native_layer_norm_backward(
        grad_y.to(wide),
        wide_s,
        s.shape[-1:],
        mean,
        rstd,
        _cast(weight, wide),
        _cast(bias, wide),
        [True, parameters_need_grad and weight is not None, parameters_need_grad and bias is not None],
    )
    if grad_sum is not None:
        grad_s = grad_s + grad_sum
    return as_new(grad_s.to(s.dtype)), _cast_like(grad_weight, weight), _cast_like(grad_bias, bias)


def _mean_is_coarse(s: Tensor, mean: Tensor, rstd: Tensor) -> bool:
    """Return whether rows must be centred before they are normalised, as fp32 rows at a large offset.

    The mean of values about 10000 is rounded to 0.001, by which every normalised value of the row would be wrong. In
    half precision the values are rounded more than their mean. Only a CPU can look at the rows without waiting for the
    device; elsewhere all fp32 rows are centred.
    """
    if s.dtype != torch.float32:
        return False
    return s.device.type != "cpu" or bool(((mean.abs() * rstd > _MOST_MEAN) & rstd.isfinite()).any())


def _cast(parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if parameter is None else parameter.to(dtype)


def _cast_like(grad: Tensor | None, parameter: Tensor | None) -> Tensor | None:
    """Cast a gradient to the dtype of its parameter; None where either is None."""
    return None if grad is None or parameter is None else grad.to(parameter.dtype)


# --- op, fake, autograd


def _forward(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    if use_triton(x, residual, weight, bias, held_width=x.shape[-1]):
        return launch_layer_norm_forward(x, residual, weight, bias, eps)
    if use_cpu_kernels(x, residual, weight, bias):
        return _cpu_launchers.layer_norm_forward(x, residual, weight, bias, eps)
    return layer_norm_reference(x, residual, weight, bias, eps)


def _forward_fake(x: Tensor, residual: Tensor | None, *_: Any) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    return allocate_layer_norm(x, residual)


def _backward(
    grad_y: Tensor,
    grad_sum: Tensor | None,
    s: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    parameters_need_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if use_triton(grad_y, grad_sum, s, weight, bias, held_width=s.shape[-1]):
        run = launch_layer_norm_backward
    elif use_cpu_kernels(grad_y, grad_sum, s, weight, bias):
        run = _cpu_launchers.layer_norm_backward
    else:
        return layer_norm_backward_reference(grad_y, grad_sum, s, weight, bias, mean, rstd, parameters_need_grad)
    needs_grad = (parameters_need_grad and weight is not None, parameters_need_grad and bias is not None)
    grad_s, grad_weight, grad_bias = run(grad_y, grad_sum, s, weight, mean, rstd, needs_grad)
    return grad_s, _cast_like(grad_weight, weight), _cast_like(grad_bias, bias)


def _backward_fake(
    _grad_y: Tensor,
    _grad_sum: Tensor | None,
    s: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    _mean: Tensor,
    _rstd: Tensor,
    parameters_need_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    grad_weight, grad_bias = (
        parameter.new_empty(parameter.shape) if parameters_need_grad and parameter is not None else None
        for parameter in (weight, bias)
    )
    return s.new_empty(s.shape), grad_weight, grad_bias


_op = register_op(
    "layer_norm(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_backward_op = register_op(
    "layer_norm_backward(Tensor grad_y, Tensor? grad_sum, Tensor s, Tensor? weight, Tensor? bias, Tensor mean,"
    " Tensor rstd, bool parameters_need_grad) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    x, residual, weight, bias, _ = inputs
    _, s, mean, rstd = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.x_dtype = x.dtype
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.save_for_backward(x if residual is None else s, weight, bias, mean, rstd)


def _autograd_backward(ctx: Any, grad_y: Tensor | None, grad_sum: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    s, weight, bias, mean, rstd = ctx.saved_tensors
    _, _, weight_needs_grad, bias_needs_grad, _ = ctx.needs_input_grad
    grad_s, grad_weight, grad_bias = grad_sum, None, None
    if grad_y is not None:  # it is None where only the sum was used
        needs_grad = weight_needs_grad or bias_needs_grad
        grad_s, grad_weight, grad_bias = _backward_op(grad_y, grad_sum, s, weight, bias, mean, rstd, needs_grad)
    if grad_s is None:
        return None, None, None, None, None
    return (
        grad_s.to(ctx.x_dtype),
        None if ctx.residual_dtype is None else grad_s.to(ctx.residual_dtype),
        grad_weight if weight_needs_grad else None,
        grad_bias if bias_needs_grad else None,
        None,
    )


register_autograd(_op, _autograd_backward, _setup_context)
refuse_double_backward(_backward_op)


# --- public


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    residual: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer-normalise the last dimension. The result can be differentiated once.

    Args:
        x: (..., width), any floating dtype.
        weight: (width), the gain. None stands for 1.
        bias: (width), the shift. None stands for 0.
        eps: added to the variance.
        residual: a tensor that is added to x first. The sum has the shape and dtype that torch gives x + residual.

    Returns:
        y (..., width) in the dtype of the tensor that was normalised, also under autocast. With `residual`, the pair
        (y, s), where s = x + residual.

    Raises:
        ValueError: for a scalar x, and for a weight or a bias whose shape is not (width).
    """
    if x.ndim == 0:
        raise ValueError("layer_norm needs a last dimension, and x is a scalar")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != x.shape[-1:]:
            shapes = f"{name} {tuple(parameter.shape)} does not fit x {tuple(x.shape)}"
            raise ValueError(f"{shapes}: it must be ({x.shape[-1]},)")
    if residual is not None and residual.shape != x.shape:
        s = x + residual  # The kernel adds tensors of one shape only. Here torch broadcasts them.
        y: Tensor = _op(s, None, weight, bias, eps)[0]
        return y, s
    y, s, _, _ = _op(x, residual, weight, bias, eps)
    return y if residual is None else (y, s)
