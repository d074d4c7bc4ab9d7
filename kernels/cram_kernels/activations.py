"""Gated activations: act(first half) * second half.

    geglu(a | b)  = gelu(a) * b,   gelu(a) = a * Phi(a), with the exact normal distribution function Phi
    swiglu(a | b) = silu(a) * b,   silu(a) = a * sigmoid(a)

The backward pass, with dy the gradient of the product and phi the normal density:

    da = dy * b * act'(a),   gelu'(a) = Phi(a) + a * phi(a),   silu'(a) = sigmoid(a) * (1 + a * (1 - sigmoid(a)))
    db = dy * act(a)

Both halves of the gradient are written directly into one buffer. Autograd would compute them into buffers of their own
and then copy both. The kernels compute in fp32. They keep only x for the backward pass, and compute act(a) again there.

Source: arXiv:2002.05202 eq. 6.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cram_kernels import _cpu_launchers
from cram_kernels._dispatch import (
    as_new,
    refuse_double_backward,
    register_autograd,
    register_op,
    use_cpu_kernels,
    use_triton,
)
from cram_kernels._launch import as_rows, count_programs, launch
from cram_kernels._settings import LaunchSettings, choose_settings
from cram_kernels._triton import exp, tl, triton

_aten = torch.ops.aten


# --- reference


def gated_reference(x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute act(first half) * second half, (..., H), for x (..., 2H)."""
    first, second = x.chunk(2, dim=-1)
    return as_new(act(first) * second)


def gated_backward_reference(
    grad_y: Tensor, x: Tensor, act: Callable[[Tensor], Tensor], act_backward: Callable[..., Tensor]
) -> Tensor:
    """Compute the gradient of x (..., 2H).

    Args:
        grad_y: (..., H), gradient of the product.
        x: (..., 2H).
        act: the activation.
        act_backward: the aten gradient of the activation, the overload with an output argument.
    """
    first, second = x.chunk(2, dim=-1)
    grad_x = x.new_empty(x.shape)
    grad_first, grad_second = grad_x.chunk(2, dim=-1)
    torch.mul(grad_y, act(first), out=grad_second)
    act_backward(grad_y * second, first, grad_input=grad_first)
    return grad_x


# --- kernels


@triton.jit
def _activate(a: tl.tensor, SILU: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return act(a) and act'(a)."""
    if SILU:
        share = 1.0 / (1.0 + exp(-a))
        slope = share * (1.0 + a * (1.0 - share))
    else:
        share = 0.5 + 0.5 * tl.erf(a * 0.7071067811865476)
        slope = share + a * (0.3989422804014327 * exp(-0.5 * a * a))
    return a * share, slope


@triton.jit
def _gated_forward_kernel(
    x_ptr: tl.tensor,  # (rows, 2 * half), rows x_stride apart
    y_ptr: tl.tensor,  # (rows, half)
    x_stride: tl.tensor,
    rows: tl.tensor,
    half: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    blocks = (half + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    in_range = (row < rows)[:, None] & (column < half)[None, :]
    first_ptr = x_ptr + row[:, None] * x_stride + column[None, :]
    first = tl.load(first_ptr, mask=in_range, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + half, mask=in_range, other=0.0).to(tl.float32)
    activated, _ = _activate(first, SILU)
    y = (activated * second).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row[:, None] * half + column[None, :], y, mask=in_range)


@triton.jit
def _gated_backward_kernel(
    grad_y_ptr: tl.tensor,  # (rows, half), rows grad_y_stride apart
    x_ptr: tl.tensor,  # (rows, 2 * half), rows x_stride apart
    grad_x_ptr: tl.tensor,  # (rows, 2 * half)
    grad_y_stride: tl.tensor,
    x_stride: tl.tensor,
    rows: tl.tensor,
    half: tl.tensor,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    blocks = (half + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    in_range = (row < rows)[:, None] & (column < half)[None, :]
    first_ptr = x_ptr + row[:, None] * x_stride + column[None, :]
    first = tl.load(first_ptr, mask=in_range, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + half, mask=in_range, other=0.0).to(tl.float32)
    grad_y_offset = row[:, None] * grad_y_stride + column[None, :]
    grad_y = tl.load(grad_y_ptr + grad_y_offset, mask=in_range, other=0.0).to(tl.float32)
    activated, slope = _activate(first, SILU)
    grad_first_ptr = grad_x_ptr + row[:, None] * (2 * half) + column[None, :]
    tl.store(grad_first_ptr, (grad_y * second * slope).to(grad_x_ptr.dtype.element_ty), mask=in_range)
    tl.store(grad_first_ptr + half, (grad_y * activated).to(grad_x_ptr.dtype.element_ty), mask=in_range)


# --- launchers


def _count_tiles(rows: int, half: int, settings: LaunchSettings) -> int:
    return count_programs(rows, settings) * -(-half // settings.block)


def launch_gated_forward(x: Tensor, silu: bool) -> Tensor:
    """Compute act(first half) * second half (..., H) of x (..., 2H), with SiLU or GELU."""
    x_rows, half = as_rows(x), x.shape[-1] // 2
    y = x.new_empty((*x.shape[:-1], half))
    settings = choose_settings("gated_forward", len(x_rows), half, x.dtype, x.device)
    launch(
        _gated_forward_kernel,
        _count_tiles(len(x_rows), half, settings),
        x_rows,
        y,
        x_rows.stride(0),
        len(x_rows),
        half,
        settings=settings,
        SILU=silu,
    )
    return y


def launch_gated_backward(grad_y: Tensor, x: Tensor, silu: bool) -> Tensor:
    """Compute the gradient of x (..., 2H), given that of the product (..., H)."""
    grad_y_rows, x_rows, half = as_rows(grad_y), as_rows(x), x.shape[-1] // 2
    grad_x = x.new_empty(x.shape)
    settings = choose_settings("gated_backward", len(x_rows), half, x.dtype, x.device)
    launch(
        _gated_backward_kernel,
        _count_tiles(len(x_rows), half, settings),
        grad_y_rows,
        x_rows,
        grad_x,
        grad_y_rows.stride(0),
        x_rows.stride(0),
        len(x_rows),
        half,
        settings=settings,
        SILU=silu,
    )
    return grad_x


# --- op, fake, autograd


def _forward_fake(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


def _backward_fake(_grad_y: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    (x,) = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x)


def _register_activation(name: str, act: Callable[[Tensor], Tensor], act_backward: Callable[..., Tensor]) -> Any:
    """Register the op of one activation and its gradient, and return the op.

    Args:
        name: of the op.
        act: the activation.
        act_backward: the aten gradient of the activation, the overload with an output argument.
    """
    silu = act is F.silu

    def forward(x: Tensor) -> Tensor:
        if use_triton(x):
            return launch_gated_forward(x, silu)
        return _cpu_launchers.gated_forward(x, silu) if use_cpu_kernels(x) else gated_reference(x, act)

    def backward(grad_y: Tensor, x: Tensor) -> Tensor:
        if use_triton(grad_y, x):
            return launch_gated_backward(grad_y, x, silu)
        if use_cpu_kernels(grad_y, x):
            return _cpu_launchers.gated_backward(grad_y.to(x.dtype), x, silu)
        return gated_backward_reference(grad_y, x, act, act_backward)

    def autograd_backward(ctx: Any, grad_y: Tensor | None) -> Tensor | None:
        return None if grad_y is None else backward_op(grad_y, *ctx.saved_tensors)

    op = register_op(f"{name}(Tensor x) -> Tensor", forward, _forward_fake)
    backward_op = register_op(f"{name}_backward(Tensor grad_y, Tensor x) -> Tensor", backward, _backward_fake)
    register_autograd(op, autograd_backward, _setup_context)
    refuse_double_backward(backward_op)
    return op


_geglu_op = _register_activation("geglu", F.gelu, _aten.gelu_backward.grad_input)
_swiglu_op = _register_activation("swiglu", F.silu, _aten.silu_backward.grad_input)


# --- public


def _check_last_dimension(x: Tensor) -> None:
    """Refuse a scalar and an odd last dimension."""
    if x.ndim == 0 or x.shape[-1] % 2:
        raise ValueError(f"x is {tuple(x.shape)}: it needs a last dimension that is even, to be halved")


def geglu(x: Tensor) -> Tensor:
    """Compute gelu(first half) * second half, with the exact GELU. The result can be differentiated once.

    Args:
        x: (..., 2H), any floating dtype.

    Returns:
        (..., H) in the dtype of x, also under autocast.

    Raises:
        ValueError: for a scalar, and for an odd last dimension.
    """
    _check_last_dimension(x)
    y: Tensor = _geglu_op(x)
    return y


def swiglu(x: Tensor) -> Tensor:
    """Compute silu(first half) * second half. The result can be differentiated once.

    Args:
        x: (..., 2H), any floating dtype.

    Returns:
        (..., H) in the dtype of x, also under autocast.

    Raises:
        ValueError: for a scalar, and for an odd last dimension.
    """
    _check_last_dimension(x)
    y: Tensor = _swiglu_op(x)
    return y
