"""Rotary position embedding in the half-split layout.

    (a | b) -> (a * cos - b * sin | b * cos + a * sin)

for the two halves a, b of the vector of each head, in fp32 for half-precision inputs. The backward pass rotates by the
opposite angle, so that only cos and sin are saved for it.

The kernel takes the strides of tokens and heads, so that it reads queries and keys where a fused projection left them.
A program reads the angles of a run of tokens once and uses them for several heads.

Source: arXiv:2104.09864 section 3.4.2, changed: the pairs are (i, i + head_dim / 2), as in transformers, instead of
neighbours.
"""

from typing import Any

import torch
from torch import Tensor

from cram_kernels import _cpu_launchers
from cram_kernels._dispatch import (
    refuse_double_backward,
    register_autograd,
    register_op,
    use_cpu_kernels,
    use_triton,
)
from cram_kernels._launch import count_programs, launch
from cram_kernels._settings import choose_settings
from cram_kernels._triton import tl, triton

HEADS_PER_PROGRAM = 4  # rotated one after the other


# --- reference


def rope_reference(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Rotate x (..., tokens, heads, head_dim) by sign * the angle of cos, sin (..., tokens, head_dim / 2)."""
    x_wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # One multiplication computes the first products of both halves, because on a CPU rows of half a head are short.
    cos, sin = torch.cat([cos, cos], dim=-1).unsqueeze(-2), sin.unsqueeze(-2)
    rotated = torch.mul(x_wide, cos, out=x.new_empty(x.shape, dtype=x_wide.dtype))
    first, second = x_wide.chunk(2, dim=-1)
    rotated_first, rotated_second = rotated.chunk(2, dim=-1)
    rotated_first.addcmul_(second, sin, value=-sign)
    rotated_second.addcmul_(first, sin, value=sign)
    return rotated.to(x.dtype)


# --- kernels


@triton.jit
def _rotate(
    x_ptr: tl.tensor,  # (ROWS, BLOCK), the first halves of head 0
    rotated_ptr: tl.tensor,  # (ROWS, BLOCK), the first halves of head 0
    cos: tl.tensor,
    sin: tl.tensor,
    in_range: tl.tensor,
    first_head: tl.tensor,
    heads: tl.tensor,
    half: tl.tensor,
    head_stride: tl.tensor,
    HEADS: tl.constexpr,
) -> None:
    """Rotate HEADS heads of a run of tokens. Heads beyond the last one are neither read nor written."""
    for index in tl.static_range(HEADS):
        head = first_head + index
        # `in_range & (head < heads)` is an integer in Triton's interpreter, and tl.load refuses that from 3.9 on.
        head_in_range = tl.where(head < heads, in_range, False)
        first = tl.load(x_ptr + head * head_stride, mask=head_in_range, other=0.0).to(tl.float32)
        second = tl.load(x_ptr + head * head_stride + half, mask=head_in_range, other=0.0).to(tl.float32)
        head_ptr = rotated_ptr + head * (2 * half)
        tl.store(head_ptr, (first * cos - second * sin).to(rotated_ptr.dtype.element_ty), mask=head_in_range)
        tl.store(head_ptr + half, (second * cos + first * sin).to(rotated_ptr.dtype.element_ty), mask=head_in_range)


@triton.jit
def _rope_kernel(
    q_ptr: tl.tensor,  # (lead, tokens, q_heads, 2 * half), of the strides below
    k_ptr: tl.tensor,  # (lead, tokens, k_heads, 2 * half)
    cos_ptr: tl.tensor,  # (lead, tokens, half)
    sin_ptr: tl.tensor,  # (lead, tokens, half)
    q_rotated_ptr: tl.tensor,  # (lead, tokens, q_heads, 2 * half)
    k_rotated_ptr: tl.tensor,  # (lead, tokens, k_heads, 2 * half)
    q_lead_stride: tl.tensor,
    q_token_stride: tl.tensor,
    q_head_stride: tl.tensor,
    k_lead_stride: tl.tensor,
    k_token_stride: tl.tensor,
    k_head_stride: tl.tensor,
    cos_lead_stride: tl.tensor,
    cos_token_stride: tl.tensor,
    sin_lead_stride: tl.tensor,
    sin_token_stride: tl.tensor,
    tokens: tl.tensor,
    q_heads: tl.tensor,
    k_heads: tl.tensor,
    half: tl.tensor,
    sign: tl.tensor,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    # Neighbouring programs take the same tokens, first the groups of heads of q, then those of k. The angles of these
    # tokens therefore stay in the cache.
    q_groups = (q_heads + HEADS - 1) // HEADS
    groups = q_groups + (k_heads + HEADS - 1) // HEADS
    tiles = (tokens + ROWS - 1) // ROWS
    group = (tl.program_id(0) % groups).to(tl.int64)
    lead = (tl.program_id(0) // groups // tiles).to(tl.int64)
    token = (tl.program_id(0) // groups % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    in_range = (token < tokens) & (column < half)
    cos_tokens_ptr = cos_ptr + lead * cos_lead_stride + token * cos_token_stride + column
    sin_tokens_ptr = sin_ptr + lead * sin_lead_stride + token * sin_token_stride + column
    cos = tl.load(cos_tokens_ptr, mask=in_range, other=0.0).to(tl.float32)
    sin = tl.load(sin_tokens_ptr, mask=in_range, other=0.0).to(tl.float32) * sign
    row = (lead * tokens + token) * (2 * half)
    if group < q_groups:
        q_tokens_ptr = q_ptr + lead * q_lead_stride + token * q_token_stride + column
        q_rotated_tokens_ptr = q_rotated_ptr + row * q_heads + column
        _rotate(
            q_tokens_ptr, q_rotated_tokens_ptr, cos, sin, in_range, group * HEADS, q_heads, half, q_head_stride, HEADS
        )
    else:
        k_tokens_ptr = k_ptr + lead * k_lead_stride + token * k_token_stride + column
        k_rotated_tokens_ptr = k_rotated_ptr + row * k_heads + column
        _rotate(
            k_tokens_ptr,
            k_rotated_tokens_ptr,
            cos,
            sin,
            in_range,
            (group - q_groups) * HEADS,
            k_heads,
            half,
            k_head_stride,
            HEADS,
        )


# --- launchers


def _fold_leading(x: Tensor, trailing: int) -> Tensor:
    """Fold all but the last `trailing` dimensions of x into one, the last contiguous: a view where strides allow it."""
    folded = x.reshape(x.shape[:-trailing].numel(), *x.shape[-trailing:])
    return folded if folded.stride(-1) == 1 or folded.shape[-1] == 1 else folded.contiguous()


def launch_rope(
    q: Tensor | None, k: Tensor | None, cos: Tensor, sin: Tensor, sign: int
) -> tuple[Tensor | None, Tensor | None]:
    """Rotate q and k, or the one that is not None, by sign * the angle of cos and sin."""
    template = k if q is None else q
    assert template is not None
    q_rotated, k_rotated = (None if x is None else x.new_empty(x.shape) for x in (q, k))
    # The kernel takes both. A missing one is given as a tensor of no heads.
    q_tokens, k_tokens = (_fold_leading(template[..., :0, :] if x is None else x, 3) for x in (q, k))
    cos_tokens, sin_tokens = (
        _fold_leading(angle.expand(*template.shape[:-2], angle.shape[-1]), 2) for angle in (cos, sin)
    )
    lead, tokens, q_heads, head_dim = q_tokens.shape
    k_heads = k_tokens.shape[2]
    settings = choose_settings("rope", tokens, head_dim // 2, template.dtype, template.device)
    head_groups = sum(-(-heads // HEADS_PER_PROGRAM) for heads in (q_heads, k_heads))
    launch(
        _rope_kernel,
        lead * count_programs(tokens, settings) * head_groups,
        q_tokens,
        k_tokens,
        cos_tokens,
        sin_tokens,
        k_rotated if q_rotated is None else q_rotated,
        q_rotated if k_rotated is None else k_rotated,
        *(stride for x in (q_tokens, k_tokens, cos_tokens, sin_tokens) for stride in x.stride()[:-1]),
        tokens,
        q_heads,
        k_heads,
        head_dim // 2,
        sign,
        settings=settings,
        HEADS=HEADS_PER_PROGRAM,
    )
    return q_rotated, k_rotated


# --- op, fake, autograd


def _rotate_pair(
    q: Tensor | None, k: Tensor | None, cos: Tensor, sin: Tensor, sign: int
) -> tuple[Tensor | None, Tensor | None]:
    if use_triton(q, k, cos, sin, held_width=2 * cos.shape[-1]):
        return launch_rope(q, k, cos, sin, sign)
    run = _cpu_launchers.rotate if use_cpu_kernels(q, k, cos, sin) else rope_reference
    q_rotated, k_rotated = (None if x is None else run(x, cos, sin, sign) for x in (q, k))
    return q_rotated, k_rotated


def _forward(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor | None, Tensor | None]:
    return _rotate_pair(q, k, cos, sin, 1)


def _backward(
    grad_q: Tensor | None, grad_k: Tensor | None, cos: Tensor, sin: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    return _rotate_pair(grad_q, grad_k, cos, sin, -1)


def _fake(q: Tensor | None, k: Tensor | None, _cos: Tensor, _sin: Tensor) -> tuple[Tensor | None, Tensor | None]:
    q_rotated, k_rotated = (None if x is None else x.new_empty(x.shape) for x in (q, k))
    return q_rotated, k_rotated


_op = register_op("rope(Tensor q, Tensor k, Tensor cos, Tensor sin) -> (Tensor, Tensor)", _forward, _fake)
_backward_op = register_op(
    "rope_backward(Tensor? grad_q, Tensor? grad_k, Tensor cos, Tensor sin) -> (Tensor, Tensor)", _backward, _fake
)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(cos, sin)


def _autograd_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    q_needs_grad, k_needs_grad, _, _ = ctx.needs_input_grad
    grad_q, grad_k = (
        grad if needed else None for grad, needed in zip(grads, (q_needs_grad, k_needs_grad), strict=True)
    )
    if grad_q is None and grad_k is None:
        return None, None, None, None
    return *_backward_op(grad_q, grad_k, *ctx.saved_tensors), None, None


register_autograd(_op, _autograd_backward, _setup_context)
refuse_double_backward(_backward_op)


# --- public


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by the angles of their positions. The result can be differentiated once.

    Args:
        q: (..., tokens, heads, head_dim), any floating dtype, head_dim even.
        k: (..., tokens, key_heads, head_dim). The number of heads may differ from that of q.
        cos: (..., tokens, head_dim / 2), broadcast over the leading dimensions of q, so that positions may restart
            anywhere. It gets no gradient.
        sin: as cos.

    Returns:
        The rotated q and k, each in its own dtype and shape, also under autocast.

    Raises:
        ValueError: where k, or cos and sin, do not fit q.
    """
    if q.ndim < 3 or k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
        shapes = f"k {tuple(k.shape)} does not fit q {tuple(q.shape)}"
        raise ValueError(f"{shapes}: only the number of heads, the last dimension but one, may differ")
    if q.shape[-1] % 2 or cos.shape[-1] * 2 != q.shape[-1] or cos.shape != sin.shape:
        raise ValueError(f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit head_dim {q.shape[-1]}")
    pairs = zip(reversed(cos.shape[:-1]), reversed(q.shape[:-2]), strict=False)
    if cos.ndim > q.ndim - 1 or any(cos_size not in (1, size) for cos_size, size in pairs):
        leading = f"the leading dimensions and tokens of q, {tuple(q.shape[:-2])}"
        raise ValueError(f"cos {tuple(cos.shape)} does not broadcast to {leading}")
    q_rotated, k_rotated = _op(q, k, cos, sin)
    return q_rotated, k_rotated
