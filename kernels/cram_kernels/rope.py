"""Rotary position embedding, half-split layout.

    (a | b) -> (a * cos - b * sin | b * cos + a * sin)

for the two halves a, b of each head's vector. The backward pass is the rotation by the opposite angle, so
nothing but cos and sin is kept.

Source: arXiv:2104.09864 section 3.4.2, changed: pairs are (i, i + head_dim / 2), as transformers has them,
instead of neighbours.
"""

from typing import Any

import torch
from torch import Tensor


def rope_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (..., tokens, heads, head_dim) by cos, sin (..., tokens, 1, head_dim / 2); fp32 inside."""
    wide = torch.promote_types(x.dtype, torch.float32)
    first, second = x.to(wide).chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=wide, device=x.device)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out.to(x.dtype)


class _Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        return rope_reference(q, cos, sin), rope_reference(k, cos, sin)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor, Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rope_reference(grad_q, cos, -sin), rope_reference(grad_k, cos, -sin), None, None


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by their positions' angles.

    Args:
        q: (..., tokens, heads, head_dim), any floating dtype, head_dim even.
        k: (..., tokens, key_heads, head_dim); the heads may differ.
        cos: (..., tokens, head_dim / 2), broadcast over q's leading dims, so positions may restart anywhere.
        sin: as cos. Neither gets a gradient.

    Returns:
        The rotated pair, each in its own dtype and shape.

    Raises:
        ValueError: where cos and sin do not have head_dim / 2 columns.
    """
    if q.shape[-1] % 2 or cos.shape[-1] * 2 != q.shape[-1] or cos.shape != sin.shape:
        raise ValueError(f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit head_dim {q.shape[-1]}")
    return _Rope.apply(q, k, cos.unsqueeze(-2), sin.unsqueeze(-2))
