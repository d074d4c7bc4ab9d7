"""Softmax over the last dimension, scaled and masked.

    p_j = exp(scale * x_j - max) / sum_k exp(scale * x_k - max)        over the kept positions
    dx_j = scale * p_j * (dp_j - sum_k dp_k p_k)

computed in fp32 for half-precision inputs. Only p is kept for the backward pass: where it is 0, by the mask, so is the
gradient. A row that fits into registers is read once. A wider one is read twice, a block at a time: for its maximum and
its sum, found together, and for its values; the second time it comes from the cache.

Source: arXiv:1706.03762 eq. 1, changed: a row with no kept position gives zeros instead of NaN. Maximum and sum in one
pass: arXiv:1805.02867 alg. 3.
"""

from typing import Any

import torch
from torch import Tensor

from cram_kernels._dispatch import define, differentiate, differentiate_never, use_triton
from cram_kernels._launch import Settings, as_rows, empty, launch, programs_for, row_stride, tl, triton, whole_rows

# Widest rows held whole: 32 elements a thread, one tensor in the forward pass and two in the backward pass.
MOST_HELD_FORWARD, MOST_HELD_BACKWARD = 32_768, 16_384


# --- reference


def softmax_reference(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Softmax of scale * x (..., n) over the kept positions; returns x's dtype."""
    # torch's half-precision softmax is fp32 inside, but a scaled x would be rounded on the way to it.
    scores = x if scale == 1.0 else x.to(torch.promote_types(x.dtype, torch.float32)) * scale
    if mask is None:
        return torch.softmax(scores, -1).to(x.dtype)
    shares = torch.softmax(torch.where(mask, scores, float("-inf")), -1).to(x.dtype)
    anything = mask.any(-1, keepdim=True)
    # Most masks keep something of every row. Only on a CPU is it free to look, and saves writing all shares again.
    if x.device.type == "cpu" and bool(anything.all()):
        return shares
    return shares.masked_fill_(~anything, 0.0)


def softmax_backward_reference(grad: Tensor, shares: Tensor, scale: float) -> Tensor:
    """The gradient of x, given that of the shares, both (..., n)."""
    grad_x = torch.ops.aten._softmax_backward_data(grad, shares, -1, shares.dtype)
    return grad_x if scale == 1.0 else grad_x.mul_(scale)


# --- kernels


@triton.jit
def _scores(x_at, mask_at, inside, scale, HAS_MASK: tl.constexpr):
    """scale * x, -inf where it is not kept, and what is kept."""
    kept = inside
    if HAS_MASK:
        kept = inside & (tl.load(mask_at, mask=inside, other=0) != 0)
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    return tl.where(kept, x * scale, float("-inf")), kept


@triton.jit
def _softmax_forward_kernel(
    x_ptr,  # (outer * inner * group_rows, width), rows x_stride apart
    mask_ptr,  # uint8 (outer, inner, group_rows, width), of the strides below
    p_ptr,  # (outer * inner * group_rows, width)
    x_stride,
    outer_stride,
    inner_stride,
    mask_stride,
    column_stride,
    inner,
    group_rows,
    width,
    scale,
    HAS_MASK: tl.constexpr,
    HELD: tl.constexpr,  # whether a block is a whole row
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tiles = (group_rows + ROWS - 1) // ROWS
    group = (tl.program_id(0) // tiles).to(tl.int64)
    index = (tl.program_id(0) % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row = (group * group_rows + index)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    in_group = (index < group_rows)[:, None]
    x_at = x_ptr + row * x_stride + column
    p_at = p_ptr + row * width + column
    mask_at = mask_ptr + (group // inner * outer_stride + group % inner * inner_stride)
    mask_at = mask_at + index[:, None] * mask_stride + column * column_stride
    if HELD:
        inside = in_group & (column < width)
        score, kept = _scores(x_at, mask_at, inside, scale, HAS_MASK)
        # The maximum passes over NaN, but the sum does not: it makes NaN of the whole row, as does a maximum of -inf.
        power = tl.exp(score - tl.max(score, axis=1)[:, None])
        p = power / tl.sum(power, axis=1)[:, None]
        if HAS_MASK:
            p = tl.where((tl.max(kept.to(tl.int32), axis=1) > 0)[:, None], p, 0.0)
        tl.store(p_at, p.to(p_ptr.dtype.element_ty), mask=inside)
    else:
        largest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        anything = tl.zeros((ROWS,), tl.int32)
        for start in range(0, width, BLOCK):
            inside = in_group & (start + column < width)
            score, kept = _scores(x_at + start, mask_at + start * column_stride, inside, scale, HAS_MASK)
            larger = tl.maximum(largest, tl.max(score, axis=1))
            # A beginning of nothing but -inf must not make NaN of what follows; a row of nothing else ends as 0 / 0.
            offset = tl.where(larger == float("-inf"), 0.0, larger)
            total = total * tl.exp(largest - offset) + tl.sum(tl.exp(score - offset[:, None]), axis=1)
            anything = tl.maximum(anything, tl.max(kept.to(tl.int32), axis=1))
            largest = larger
        offset = tl.where(largest == float("-inf"), 0.0, largest)
        for start in range(0, width, BLOCK):
            inside = in_group & (start + column < width)
            score, _ = _scores(x_at + start, mask_at + start * column_stride, inside, scale, HAS_MASK)
            p = tl.exp(score - offset[:, None]) / total[:, None]
            if HAS_MASK:
                p = tl.where((anything > 0)[:, None], p, 0.0)
            tl.store(p_at + start, p.to(p_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _softmax_backward_kernel(
    grad_ptr,  # (rows, width), rows grad_stride apart
    p_ptr,  # (rows, width), rows p_stride apart
    grad_x_ptr,  # (rows, width)
    grad_stride,
    p_stride,
    rows,
    width,
    scale,
    HELD: tl.constexpr,  # whether a block is a whole row
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    grad_at = grad_ptr + row * grad_stride + column
    p_at = p_ptr + row * p_stride + column
    grad_x_at = grad_x_ptr + row * width + column
    if HELD:
        inside = (row < rows) & (column < width)
        grad = tl.load(grad_at, mask=inside, other=0.0).to(tl.float32)
        p = tl.load(p_at, mask=inside, other=0.0).to(tl.float32)
        grad_x = scale * p * (grad - tl.sum(grad * p, axis=1)[:, None])
        tl.store(grad_x_at, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
    else:
        along = tl.zeros((ROWS,), tl.float32)
        for start in range(0, width, BLOCK):
            inside = (row < rows) & (start + column < width)
            grad = tl.load(grad_at + start, mask=inside, other=0.0).to(tl.float32)
            along += tl.sum(grad * tl.load(p_at + start, mask=inside, other=0.0).to(tl.float32), axis=1)
        for start in range(0, width, BLOCK):
            inside = (row < rows) & (start + column < width)
            grad = tl.load(grad_at + start, mask=inside, other=0.0).to(tl.float32)
            p = tl.load(p_at + start, mask=inside, other=0.0).to(tl.float32)
            grad_x = scale * p * (grad - along[:, None])
            tl.store(grad_x_at + start, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)


# --- launchers


def forward_settings(width: int) -> Settings:
    """Four rows of 1024. Wide rows have all the warps, so that few are under way and stay in the cache meanwhile."""
    return whole_rows(width, elements=4096) if width <= MOST_HELD_FORWARD else Settings(1, 8192, 32)


def backward_settings(width: int) -> Settings:
    """Half of the forward's, in all and a thread: the shares and their gradient are held at once."""
    return whole_rows(width, 2048, per_thread=16) if width <= MOST_HELD_BACKWARD else Settings(1, 8192, 32)


def _mask_layout(mask: Tensor, shape: torch.Size) -> tuple[Tensor, list[int], list[int]]:
    """The mask as uint8 of x's shape, its strides (outer, inner, row, column), and its sizes (outer, inner, rows).

    What is broadcast has stride 0 and is not written out, unless more than three dimensions of rows are left when those
    that step evenly are folded together. For attention, (rows, 1, q, k) is (rows, heads, q). Columns step by 1 or 0.
    """
    view = (mask.contiguous() if mask.stride()[-1:] > (1,) else mask).expand(shape).view(torch.uint8)
    sizes: list[int] = []
    strides: list[int] = []
    for size, stride in zip(view.shape[:-1], view.stride()[:-1], strict=True):
        if sizes and strides[-1] == size * stride:
            sizes[-1] *= size
            strides[-1] = stride
        elif size != 1:
            sizes.append(size)
            strides.append(stride)
    if len(sizes) > 3:
        return _mask_layout(mask.expand(shape).contiguous(), shape)
    missing = 3 - len(sizes)
    return view, [0] * missing + strides + [view.stride(-1)], [1] * missing + sizes


def _softmax_forward(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    rows, width = as_rows(x), x.shape[-1]
    view, strides, sizes = rows, [0, 0, 0, 0], [1, 1, len(rows)]
    if mask is not None:
        view, strides, sizes = _mask_layout(mask, x.shape)
    outer, inner, group_rows = sizes
    p = empty(x, x.shape)
    settings = forward_settings(width)
    launch(
        _softmax_forward_kernel,
        outer * inner * programs_for(group_rows, settings),
        rows, view, p, row_stride(rows), *strides, inner, group_rows, width, scale,
        settings=settings, HAS_MASK=mask is not None, HELD=settings.block >= width, ROWS=settings.rows,
        BLOCK=settings.block,
    )  # fmt: skip
    return p


def _softmax_backward(grad: Tensor, shares: Tensor, scale: float) -> Tensor:
    grads, rows, width = as_rows(grad), as_rows(shares), shares.shape[-1]
    grad_x = empty(shares, shares.shape)
    settings = backward_settings(width)
    launch(
        _softmax_backward_kernel,
        programs_for(len(rows), settings),
        grads, rows, grad_x, row_stride(grads), row_stride(rows), len(rows), width, scale,
        settings=settings, HELD=settings.block >= width, ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return grad_x


# --- op, fake, autograd


def _forward(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    return (_softmax_forward if use_triton(x) else softmax_reference)(x, scale, mask)


def _backward(grad: Tensor, shares: Tensor, scale: float) -> Tensor:
    return (_softmax_backward if use_triton(grad, shares) else softmax_backward_reference)(grad, shares, scale)


_op = define(
    "softmax(Tensor x, float scale, Tensor? mask) -> Tensor", _forward, lambda x, scale, mask: empty(x, x.shape)
)
_backward_op = define(
    "softmax_backward(Tensor grad, Tensor shares, float scale) -> Tensor",
    _backward,
    lambda grad, shares, scale: empty(shares, shares.shape),
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.set_materialize_grads(False)
    ctx.scale = inputs[1]
    ctx.save_for_backward(output)


def _differentiate(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
    (shares,) = ctx.saved_tensors
    return (None if grad is None else _backward_op(grad, shares, ctx.scale)), None, None


differentiate(_op, _differentiate, _save)
differentiate_never(_backward_op)


# --- public


def softmax(x: Tensor, *, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Softmax over the last dimension.

    Args:
        x: (..., n), any floating dtype.
        scale: factor on x before the softmax.
        mask: bool, broadcastable to x, True = keep. A row masked False throughout gives zeros and zero gradient; kept
            values that are all -inf give NaN as torch's softmax does.

    Returns:
        (..., n) in x's dtype, also under autocast. Differentiable once.

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
        if mask.ndim > x.ndim or any(size not in (1, whole) for size, whole in pairs):
            raise ValueError(f"the mask {tuple(mask.shape)} does not broadcast to x {tuple(x.shape)}")
    return _op(x, scale, mask)
