"""Gated activations: act(first half) * second half.

    geglu(a | b)  = gelu(a) * b,   gelu(a) = a * Phi(a) with the exact normal distribution function
    swiglu(a | b) = silu(a) * b,   silu(a) = a * sigmoid(a)

Backward, with dy the gradient of the product:

    da = dy * b * act'(a),   gelu'(a) = Phi(a) + a * phi(a),   silu'(a) = sigmoid(a) * (1 + a * (1 - sigmoid(a)))
    db = dy * act(a)

The two halves of the gradient are written straight into one buffer, where autograd would make each half apart and then
copy both together. The kernels compute in fp32, keep x alone and compute act(a) again.

Source: arXiv:2002.05202 eq. 6.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cram_kernels._dispatch import define, differentiate, differentiate_never, use_triton
from cram_kernels._launch import Settings, as_rows, empty, launch, power_of_two, programs_for, row_stride, tl, triton

_aten = torch.ops.aten


# --- reference


def gated_reference(x: Tensor, act: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """act(first half) * second half and act(first half) of x (..., 2H), each (..., H)."""
    first, second = x.chunk(2, dim=-1)
    active = act(first).contiguous()
    return (active * second).contiguous(), active


def gated_backward_reference(grad: Tensor, x: Tensor, active: Tensor, act_backward: Callable[..., Tensor]) -> Tensor:
    """The gradient of x (..., 2H); `act_backward` is the aten gradient of the activation, with its out argument."""
    first, second = x.chunk(2, dim=-1)
    grad_x = empty(x, x.shape)
    grad_first, grad_second = grad_x.chunk(2, dim=-1)
    torch.mul(grad, active, out=grad_second)
    act_backward(grad * second, first, grad_input=grad_first)
    return grad_x


# --- kernels


@triton.jit
def _activate(a, SILU: tl.constexpr):
    """act(a) and act'(a)."""
    if SILU:
        rising = tl.sigmoid(a)
        slope = rising * (1.0 + a * (1.0 - rising))
    else:
        rising = 0.5 + 0.5 * tl.erf(a * 0.7071067811865476)
        slope = rising + a * (0.3989422804014327 * tl.exp(-0.5 * a * a))
    return a * rising, slope


@triton.jit
def _gated_forward_kernel(
    x_ptr,  # (rows, 2 * half), rows x_stride apart
    y_ptr,  # (rows, half)
    x_stride,
    rows,
    half,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = (half + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < half)[None, :]
    first_at = x_ptr + row[:, None] * x_stride + column[None, :]
    first = tl.load(first_at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(first_at + half, mask=inside, other=0.0).to(tl.float32)
    active, _ = _activate(first, SILU)
    y = (active * second).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row[:, None] * half + column[None, :], y, mask=inside)


@triton.jit
def _gated_backward_kernel(
    grad_ptr,  # (rows, half), rows grad_stride apart
    x_ptr,  # (rows, 2 * half), rows x_stride apart
    grad_x_ptr,  # (rows, 2 * half)
    grad_stride,
    x_stride,
    rows,
    half,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = (half + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < half)[None, :]
    first_at = x_ptr + row[:, None] * x_stride + column[None, :]
    first = tl.load(first_at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(first_at + half, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    active, slope = _activate(first, SILU)
    place = grad_x_ptr + row[:, None] * (2 * half) + column[None, :]
    tl.store(place, (grad * second * slope).to(grad_x_ptr.dtype.element_ty), mask=inside)
    tl.store(place + half, (grad * active).to(grad_x_ptr.dtype.element_ty), mask=inside)


# --- launchers


def settings_for(half: int) -> Settings:
    """Up to 16 rows of 256 columns: a warp's 16-byte loads of half precision, and 16 elements a thread."""
    block = min(256, power_of_two(half))
    return Settings(16, block, max(1, 16 * block // 512))


def _gated_forward(x: Tensor, silu: bool) -> Tensor:
    rows, half = as_rows(x), x.shape[-1] // 2
    y = empty(x, (*x.shape[:-1], half))
    settings = settings_for(half)
    launch(
        _gated_forward_kernel, programs_for(len(rows), settings) * -(-half // settings.block),
        rows, y, row_stride(rows), len(rows), half,
        settings=settings, SILU=silu, ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return y


def _gated_backward(grad: Tensor, x: Tensor, silu: bool) -> Tensor:
    grads, rows, half = as_rows(grad), as_rows(x), x.shape[-1] // 2
    grad_x = empty(x, x.shape)
    settings = settings_for(half)
    launch(
        _gated_backward_kernel, programs_for(len(rows), settings) * -(-half // settings.block),
        grads, rows, grad_x, row_stride(grads), row_stride(rows), len(rows), half,
        settings=settings, SILU=silu, ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return grad_x


# --- op, fake, autograd


def _forward_fake(x: Tensor) -> tuple[Tensor, Tensor]:
    # act(first half) is given on a CPU alone, where to compute it again costs more than to keep it. The device decides
    # that, not the implementation: a compiled graph is cached with its shapes.
    half = (*x.shape[:-1], x.shape[-1] // 2)
    return empty(x, half), empty(x, half if x.device.type == "cpu" else (0,))


def _backward_fake(_grad: Tensor, x: Tensor, _active: Tensor) -> Tensor:
    return empty(x, x.shape)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _register(name: str, act: Callable[[Tensor], Tensor], act_backward: Callable[..., Tensor]) -> Any:
    """The op of one activation, with its gradient."""
    silu = act is F.silu

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        if use_triton(x):
            return _gated_forward(x, silu), _forward_fake(x)[1].zero_()
        y, active = gated_reference(x, act)
        return y, active if x.device.type == "cpu" else empty(x)

    def backward(grad: Tensor, x: Tensor, active: Tensor) -> Tensor:
        if use_triton(grad, x):
            return _gated_backward(grad, x, silu)
        kept = active if x.device.type == "cpu" else act(x.chunk(2, dim=-1)[0])
        return gated_backward_reference(grad, x, kept, act_backward)

    def gradient(ctx: Any, grad: Tensor | None, _: None) -> Tensor | None:
        return None if grad is None else backward_op(grad, *ctx.saved_tensors)

    op = define(f"{name}(Tensor x) -> (Tensor, Tensor)", forward, _forward_fake)
    backward_op = define(f"{name}_backward(Tensor grad, Tensor x, Tensor active) -> Tensor", backward, _backward_fake)
    differentiate(op, gradient, _save)
    differentiate_never(backward_op)
    return op


_geglu = _register("geglu", F.gelu, _aten.gelu_backward.grad_input)
_swiglu = _register("swiglu", F.silu, _aten.silu_backward.grad_input)


# --- public


def _check_halves(x: Tensor) -> None:
    if x.ndim == 0 or x.shape[-1] % 2:
        raise ValueError(f"the last dimension must be even to be halved, and x is {tuple(x.shape)}")


def geglu(x: Tensor) -> Tensor:
    """GeGLU: gelu(first half) * second half, with the exact GELU.

    Args:
        x: (..., 2H), any floating dtype.

    Returns:
        (..., H) in x's dtype, also under autocast. Differentiable once.

    Raises:
        ValueError: for an odd last dimension, or none.
    """
    _check_halves(x)
    return _geglu(x)[0]


def swiglu(x: Tensor) -> Tensor:
    """SwiGLU: silu(first half) * second half.

    Args:
        x: (..., 2H), any floating dtype.

    Returns:
        (..., H) in x's dtype, also under autocast. Differentiable once.

    Raises:
        ValueError: for an odd last dimension, or none.
    """
    _check_halves(x)
    return _swiglu(x)[0]
