"""Triton kernels of softmax, and their launchers. `softmax.py` has the formulas.

A row that fits into registers is read once. A wider row is read twice, a block at a time: the first pass finds its
maximum and its sum together, the second computes the values and reads the row from the cache.

Source: maximum and sum in one pass, arXiv:1805.02867 alg. 3.
"""

import torch
from torch import Tensor

from cram_kernels._launch import as_rows, count_programs, launch
from cram_kernels._settings import choose_settings
from cram_kernels._triton import exp, tl, triton

# --- kernels


@triton.jit
def _load_scores(
    x_ptr: tl.tensor, mask_ptr: tl.tensor, in_range: tl.tensor, scale: tl.tensor, HAS_MASK: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return scale * x, -inf at the positions that are not kept, and which positions are kept."""
    keep = in_range
    if HAS_MASK:
        keep = in_range & (tl.load(mask_ptr, mask=in_range, other=0) != 0)
    x = tl.load(x_ptr, mask=in_range, other=0.0).to(tl.float32)
    return tl.where(keep, x * scale, float("-inf")), keep


@triton.jit
def _softmax_forward_kernel(
    x_ptr: tl.tensor,  # (outer * inner * group_rows, width), rows x_stride apart
    mask_ptr: tl.tensor,  # uint8 (outer, inner, group_rows, width), of the strides below
    p_ptr: tl.tensor,  # (outer * inner * group_rows, width)
    x_stride: tl.tensor,
    outer_stride: tl.tensor,
    inner_stride: tl.tensor,
    mask_stride: tl.tensor,
    column_stride: tl.tensor,
    inner: tl.tensor,
    group_rows: tl.tensor,
    width: tl.tensor,
    scale: tl.tensor,
    HAS_MASK: tl.constexpr,
    HELD: tl.constexpr,  # whether a block is a whole row
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    tiles = (group_rows + ROWS - 1) // ROWS
    group = (tl.program_id(0) // tiles).to(tl.int64)
    group_row = (tl.program_id(0) % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row = (group * group_rows + group_row)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    in_group = (group_row < group_rows)[:, None]
    x_rows_ptr = x_ptr + row * x_stride + column
    p_rows_ptr = p_ptr + row * width + column
    mask_rows_ptr = mask_ptr + (group // inner * outer_stride + group % inner * inner_stride)
    mask_rows_ptr = mask_rows_ptr + group_row[:, None] * mask_stride + column * column_stride
    if HELD:
        in_range = in_group & (column < width)
        score, keep = _load_scores(x_rows_ptr, mask_rows_ptr, in_range, scale, HAS_MASK)
        # tl.max ignores NaN, but the sum does not: it makes the whole row NaN. So does a maximum of -inf.
        exponential = exp(score - tl.max(score, axis=1)[:, None])
        p = exponential * (1.0 / tl.sum(exponential, axis=1))[:, None]
        if HAS_MASK:
            p = tl.where((tl.max(keep.to(tl.int32), axis=1) > 0)[:, None], p, 0.0)
        tl.store(p_rows_ptr, p.to(p_ptr.dtype.element_ty), mask=in_range)
    else:
        row_max = tl.full((ROWS,), float("-inf"), tl.float32)
        exp_sum = tl.zeros((ROWS,), tl.float32)
        has_kept = tl.zeros((ROWS,), tl.int32)
        for start in range(0, width, BLOCK):
            in_range = in_group & (start + column < width)
            score, keep = _load_scores(
                x_rows_ptr + start, mask_rows_ptr + start * column_stride, in_range, scale, HAS_MASK
            )
            new_max = tl.maximum(row_max, tl.max(score, axis=1))
            # Blocks of nothing but -inf at the start of a row must not turn the rest into NaN. A row of nothing but
            # -inf ends as 0 / 0.
            offset = tl.where(new_max == float("-inf"), 0.0, new_max)
            exp_sum = exp_sum * exp(row_max - offset) + tl.sum(exp(score - offset[:, None]), axis=1)
            has_kept = tl.maximum(has_kept, tl.max(keep.to(tl.int32), axis=1))
            row_max = new_max
        offset = tl.where(row_max == float("-inf"), 0.0, row_max)
        for start in range(0, width, BLOCK):
            in_range = in_group & (start + column < width)
            score, _ = _load_scores(
                x_rows_ptr + start, mask_rows_ptr + start * column_stride, in_range, scale, HAS_MASK
            )
            p = exp(score - offset[:, None]) * (1.0 / exp_sum)[:, None]
            if HAS_MASK:
                p = tl.where((has_kept > 0)[:, None], p, 0.0)
            tl.store(p_rows_ptr + start, p.to(p_ptr.dtype.element_ty), mask=in_range)


@triton.jit
def _softmax_backward_kernel(
    grad_p_ptr: tl.tensor,  # (rows, width), rows grad_p_stride apart
    p_ptr: tl.tensor,  # (rows, width), rows p_stride apart
    grad_x_ptr: tl.tensor,  # (rows, width)
    grad_p_stride: tl.tensor,
    p_stride: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    scale: tl.tensor,
    HELD: tl.constexpr,  # whether a block is a whole row
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    grad_p_rows_ptr = grad_p_ptr + row * grad_p_stride + column
    p_rows_ptr = p_ptr + row * p_stride + column
    grad_x_rows_ptr = grad_x_ptr + row * width + column
    if HELD:
        in_range = (row < rows) & (column < width)
        grad_p = tl.load(grad_p_rows_ptr, mask=in_range, other=0.0).to(tl.float32)
        p = tl.load(p_rows_ptr, mask=in_range, other=0.0).to(tl.float32)
        grad_x = scale * p * (grad_p - tl.sum(grad_p * p, axis=1)[:, None])
        tl.store(grad_x_rows_ptr, grad_x.to(grad_x_ptr.dtype.element_ty), mask=in_range)
    else:
        dot = tl.zeros((ROWS,), tl.float32)
        for start in range(0, width, BLOCK):
            in_range = (row < rows) & (start + column < width)
            grad_p = tl.load(grad_p_rows_ptr + start, mask=in_range, other=0.0).to(tl.float32)
            dot += tl.sum(grad_p * tl.load(p_rows_ptr + start, mask=in_range, other=0.0).to(tl.float32), axis=1)
        for start in range(0, width, BLOCK):
            in_range = (row < rows) & (start + column < width)
            grad_p = tl.load(grad_p_rows_ptr + start, mask=in_range, other=0.0).to(tl.float32)
            p = tl.load(p_rows_ptr + start, mask=in_range, other=0.0).to(tl.float32)
            grad_x = scale * p * (grad_p - dot[:, None])
            tl.store(grad_x_rows_ptr + start, grad_x.to(grad_x_ptr.dtype.element_ty), mask=in_range)


# --- launchers


def _lay_out_mask(mask: Tensor, shape: torch.Size) -> tuple[Tensor, list[int], list[int]]:
    """Describe a mask that broadcasts to x as (outer, inner, row, column), as far as possible without a copy.

    A broadcast dimension has stride 0. Neighbouring dimensions that step evenly are folded into one. If more than three
    dimensions of rows are left then, the broadcast mask is copied. The mask of attention, (rows, 1, q, k) for x of
    (rows, heads, q, k), becomes (rows, heads, q) rows with an inner stride of 0.

    Returns:
        The mask as uint8 in the shape of x, its strides (outer, inner, row, column), of which the last is 1 or 0, and
        its sizes (outer, inner, row).
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
        return _lay_out_mask(mask.expand(shape).contiguous(), shape)
    missing = 3 - len(sizes)
    return view, [0] * missing + strides + [view.stride(-1)], [1] * missing + sizes


def launch_softmax_forward(x: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Compute the softmax of scale * x (..., n) over the kept positions."""
    x_rows, width = as_rows(x), x.shape[-1]
    if mask is None:
        mask_view, mask_strides, (outer, inner, group_rows) = x_rows, [0, 0, 0, 0], [1, 1, len(x_rows)]
    else:
        mask_view, mask_strides, (outer, inner, group_rows) = _lay_out_mask(mask, x.shape)
    p = x.new_empty(x.shape)
    settings = choose_settings("softmax_forward", len(x_rows), width, x.dtype, x.device)
    launch(
        _softmax_forward_kernel,
        outer * inner * count_programs(group_rows, settings),
        x_rows,
        mask_view,
        p,
        x_rows.stride(0),
        *mask_strides,
        inner,
        group_rows,
        width,
        scale,
        settings=settings,
        HAS_MASK=mask is not None,
        HELD=settings.block >= width,
    )
    return p


def launch_softmax_backward(grad_shares: Tensor, shares: Tensor, scale: float) -> Tensor:
    """Compute the gradient of x, given the gradient of the result `shares`, both (..., n)."""
    grad_rows, share_rows, width = as_rows(grad_shares), as_rows(shares), shares.shape[-1]
    grad_x = shares.new_empty(shares.shape)
    settings = choose_settings("softmax_backward", len(share_rows), width, shares.dtype, shares.device)
    launch(
        _softmax_backward_kernel,
        count_programs(len(share_rows), settings),
        grad_rows,
        share_rows,
        grad_x,
        grad_rows.stride(0),
        share_rows.stride(0),
        len(share_rows),
        width,
        scale,
        settings=settings,
        HELD=settings.block >= width,
    )
    return grad_x
