"""Rotary position embedding, half-split layout.

    (a | b) -> (a * cos - b * sin | b * cos + a * sin)

for the two halves a, b of each head's vector, in fp32 for half-precision inputs. The backward pass is the rotation by
the opposite angle, so nothing but cos and sin is kept.

The kernel takes the strides of tokens and heads, so that queries and keys are read where a fused projection left them.
A program reads the angles of a run of tokens once for several heads.

Source: arXiv:2104.09864 section 3.4.2, changed: pairs are (i, i + head_dim / 2), as transformers has them, instead of
neighbours.
"""

from typing import Any

import torch
from torch import Tensor

from cram_kernels._dispatch import define, differentiate, differentiate_never, use_triton
from cram_kernels._launch import Settings, empty, launch, power_of_two, programs_for, tl, triton

HEADS = 4  # that a program rotates, one after the other


# --- reference


def rope_reference(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Rotate x (..., tokens, heads, head_dim) by sign * the angle of cos, sin (..., tokens, head_dim / 2)."""
    x_wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # The first products of both halves are one multiplication, because on a CPU rows of half a head are short.
    cos, sin = torch.cat([cos, cos], dim=-1).unsqueeze(-2), sin.unsqueeze(-2)
    out = torch.mul(x_wide, cos, out=empty(x, x.shape, x_wide.dtype))
    first, second = x_wide.chunk(2, dim=-1)
    out_first, out_second = out.chunk(2, dim=-1)
    out_first.addcmul_(second, sin, value=-sign)
    out_second.addcmul_(first, sin, value=sign)
    return out.to(x.dtype)


# --- kernels


@triton.jit
def _rotate(
    x_at,  # (ROWS, BLOCK) first halves of head 0
    out_at,
    cos,
    sin,
    inside,
    first_head,
    heads,
    half,
    head_stride,
    HEADS: tl.constexpr,
):
    """Rotate HEADS heads of a run of tokens; those beyond the last head are left alone."""
    for index in tl.static_range(HEADS):
        head = first_head + index
        # Not `inside & (head < heads)`: Triton's interpreter makes integers of it, which its load refuses from 3.9 on.
        here = tl.where(head < heads, inside, False)
        first = tl.load(x_at + head * head_stride, mask=here, other=0.0).to(tl.float32)
        second = tl.load(x_at + head * head_stride + half, mask=here, other=0.0).to(tl.float32)
        place = out_at + head * (2 * half)
        tl.store(place, (first * cos - second * sin).to(out_at.dtype.element_ty), mask=here)
        tl.store(place + half, (second * cos + first * sin).to(out_at.dtype.element_ty), mask=here)


@triton.jit
def _rope_kernel(
    q_ptr,  # (lead, tokens, q_heads, 2 * half), of the strides below
    k_ptr,  # (lead, tokens, k_heads, 2 * half)
    cos_ptr,  # (lead, tokens, half)
    sin_ptr,  # (lead, tokens, half)
    q_out_ptr,  # (lead, tokens, q_heads, 2 * half)
    k_out_ptr,  # (lead, tokens, k_heads, 2 * half)
    q_lead_stride,
    q_token_stride,
    q_head_stride,
    k_lead_stride,
    k_token_stride,
    k_head_stride,
    cos_lead_stride,
    cos_token_stride,
    sin_lead_stride,
    sin_token_stride,
    tokens,
    q_heads,
    k_heads,
    half,
    sign,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Neighbouring programs share their tokens, and so the angles in the cache: q's groups of heads, then k's.
    q_groups = (q_heads + HEADS - 1) // HEADS
    groups = q_groups + (k_heads + HEADS - 1) // HEADS
    tiles = (tokens + ROWS - 1) // ROWS
    group = (tl.program_id(0) % groups).to(tl.int64)
    lead = (tl.program_id(0) // groups // tiles).to(tl.int64)
    token = (tl.program_id(0) // groups % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (token < tokens) & (column < half)
    cos_at = cos_ptr + lead * cos_lead_stride + token * cos_token_stride + column
    sin_at = sin_ptr + lead * sin_lead_stride + token * sin_token_stride + column
    cos = tl.load(cos_at, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sin_at, mask=inside, other=0.0).to(tl.float32) * sign
    row = (lead * tokens + token) * (2 * half)
    if group < q_groups:
        q_at = q_ptr + lead * q_lead_stride + token * q_token_stride + column
        q_out_at = q_out_ptr + row * q_heads + column
        _rotate(q_at, q_out_at, cos, sin, inside, group * HEADS, q_heads, half, q_head_stride, HEADS)
    else:
        k_at = k_ptr + lead * k_lead_stride + token * k_token_stride + column
        k_out_at = k_out_ptr + row * k_heads + column
        _rotate(k_at, k_out_at, cos, sin, inside, (group - q_groups) * HEADS, k_heads, half, k_head_stride, HEADS)


# --- launchers


def settings_for(tokens: int, half: int) -> Settings:
    """Up to 32 tokens a program and 8 elements a thread, of each half."""
    block = power_of_two(half)
    rows = min(power_of_two(tokens), 32, max(1, 1024 // block))
    return Settings(rows, block, max(1, min(32, rows * block // 256)))


def _folded(x: Tensor, kept: int) -> Tensor:
    """x with all but its last `kept` dimensions folded into one, neighbours in the last: a view where strides allow."""
    folded = x.reshape(x.shape[:-kept].numel(), *x.shape[-kept:])
    return folded if folded.stride(-1) == 1 or folded.shape[-1] == 1 else folded.contiguous()


def _rope(q: Tensor | None, k: Tensor | None, cos: Tensor, sin: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    given = q if q is not None else k
    assert given is not None
    angles = [_folded(part.expand(*given.shape[:-2], part.shape[-1]), 2) for part in (cos, sin)]
    # No heads stand for what is not given.
    parts = [_folded(given[..., :0, :] if part is None else part, 3) for part in (q, k)]
    outs = [empty(given) if part is None else empty(part, part.shape) for part in (q, k)]
    lead, tokens, _, head_dim = parts[0].shape
    heads = [part.shape[-2] for part in parts]
    settings = settings_for(tokens, head_dim // 2)
    groups = sum(-(-count // HEADS) for count in heads)
    launch(
        _rope_kernel, lead * programs_for(tokens, settings) * groups, *parts, *angles, *outs,
        *(stride for part in (*parts, *angles) for stride in part.stride()[:-1]), tokens, *heads, head_dim // 2, sign,
        settings=settings, HEADS=HEADS, ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return outs[0], outs[1]


# --- op, fake, autograd


def _rotated(q: Tensor | None, k: Tensor | None, cos: Tensor, sin: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    if use_triton(q, k, cos, sin, held_width=2 * cos.shape[-1]):
        return _rope(q, k, cos, sin, sign)
    first, second = (empty(cos) if part is None else rope_reference(part, cos, sin, sign) for part in (q, k))
    return first, second


def _forward(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return _rotated(q, k, cos, sin, 1)


def _backward(grad_q: Tensor | None, grad_k: Tensor | None, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return _rotated(grad_q, grad_k, cos, sin, -1)


def _fake(q: Tensor | None, k: Tensor | None, cos: Tensor, _sin: Tensor) -> tuple[Tensor, Tensor]:
    first, second = (empty(cos) if part is None else empty(part, part.shape) for part in (q, k))
    return first, second


_op = define("rope(Tensor q, Tensor k, Tensor cos, Tensor sin) -> (Tensor, Tensor)", _forward, _fake)
_backward_op = define(
    "rope_backward(Tensor? grad_q, Tensor? grad_k, Tensor cos, Tensor sin) -> (Tensor, Tensor)", _backward, _fake
)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[2:])


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    wanted = [grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad[:2], strict=True)]
    if all(grad is None for grad in wanted):
        return None, None, None, None
    found = _backward_op(*wanted, *ctx.saved_tensors)
    return *(None if grad is None else one for grad, one in zip(wanted, found, strict=True)), None, None


differentiate(_op, _differentiate, _save)
differentiate_never(_backward_op)


# --- public


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by their positions' angles.

    Args:
        q: (..., tokens, heads, head_dim), any floating dtype, head_dim even.
        k: (..., tokens, key_heads, head_dim); the heads may differ.
        cos: (..., tokens, head_dim / 2), broadcast over q's leading dims, so positions may restart anywhere.
        sin: as cos. Neither gets a gradient.

    Returns:
        The rotated pair, each in its own dtype and shape, also under autocast. Differentiable once.

    Raises:
        ValueError: where k, or cos and sin, do not fit q.
    """
    if q.ndim < 3 or k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"k {tuple(k.shape)} does not fit q {tuple(q.shape)}: only the heads, last but one, may differ"
        )
    if q.shape[-1] % 2 or cos.shape[-1] * 2 != q.shape[-1] or cos.shape != sin.shape:
        raise ValueError(f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit head_dim {q.shape[-1]}")
    pairs = zip(reversed(cos.shape[:-1]), reversed(q.shape[:-2]), strict=False)
    if cos.ndim > q.ndim - 1 or any(size not in (1, whole) for size, whole in pairs):
        raise ValueError(
            f"cos {tuple(cos.shape)} does not broadcast to q's {tuple(q.shape[:-2])} of leading and tokens"
        )
    return _op(q, k, cos, sin)
