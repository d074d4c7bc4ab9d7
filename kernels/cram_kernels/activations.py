"""Gated activations: act(first half) * second half.

    geglu(a | b)  = gelu(a) * b,   gelu(a) = a * Phi(a) with the exact normal distribution function
    swiglu(a | b) = silu(a) * b,   silu(a) = a * sigmoid(a)

Source: arXiv:2002.05202 eq. 6. The gradient is written straight into the two halves of one buffer, where
autograd would make each half apart and then copy both together.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_aten = torch.ops.aten


class _Gated(torch.autograd.Function):
    """act(first half) * second half; `act` and its aten gradient are given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Callable[[Tensor], Tensor], act_backward: Callable[..., Tensor]) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        active = act(first)
        ctx.save_for_backward(x, active)
        ctx.act_backward = act_backward
        return active * second

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, active = ctx.saved_tensors
        first, second = x.chunk(2, dim=-1)
        grad_x = torch.empty_like(x)
        grad_first, grad_second = grad_x.chunk(2, dim=-1)
        torch.mul(grad, active, out=grad_second)
        ctx.act_backward(grad * second, first, grad_input=grad_first)
        return grad_x, None, None


def geglu_reference(x: Tensor) -> Tensor:
    """gelu(first half) * second half of x (..., 2H), exact GELU."""
    return _Gated.apply(x, F.gelu, _aten.gelu_backward.grad_input)


def swiglu_reference(x: Tensor) -> Tensor:
    """silu(first half) * second half of x (..., 2H)."""
    return _Gated.apply(x, F.silu, _aten.silu_backward.grad_input)


def _check_halves(x: Tensor) -> None:
    if x.shape[-1] % 2:
        raise ValueError(f"the last dimension must be even to be halved, not {x.shape[-1]}")


def geglu(x: Tensor) -> Tensor:
    """GeGLU: (..., 2H) -> (..., H) in x's dtype, gelu(first half) * second half with the exact GELU.

    Raises:
        ValueError: for an odd last dimension.
    """
    _check_halves(x)
    return geglu_reference(x)


def swiglu(x: Tensor) -> Tensor:
    """SwiGLU: (..., 2H) -> (..., H) in x's dtype, silu(first half) * second half.

    Raises:
        ValueError: for an odd last dimension.
    """
    _check_halves(x)
    return swiglu_reference(x)
