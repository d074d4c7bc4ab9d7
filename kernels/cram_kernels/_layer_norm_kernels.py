"""Triton kernels of layer_norm, and their launchers. `layer_norm.py` has the formulas.

Each program of the backward kernel takes a run of consecutive rows and keeps its own fp32 sums for the gradients of
weight and bias. torch then adds up the sums of all programs in a fixed order, so that the same input gives the same
bits.
"""

import torch
from torch import Tensor

from cram_kernels._launch import as_rows, count_programs, launch
from cram_kernels._settings import choose_settings, find_target
from cram_kernels._triton import tl, triton

# --- kernels


@triton.jit
def _layer_norm_forward_kernel(
    x_ptr: tl.tensor,  # (rows, width), rows x_stride apart
    residual_ptr: tl.tensor,  # (rows, width), rows residual_stride apart
    weight_ptr: tl.tensor,  # (width)
    bias_ptr: tl.tensor,  # (width)
    y_ptr: tl.tensor,  # (rows, width)
    sum_ptr: tl.tensor,  # (rows, width)
    mean_ptr: tl.tensor,  # (rows) fp32
    rstd_ptr: tl.tensor,  # (rows) fp32
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    HAS_RESIDUAL: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    column_in_range = column < width
    in_range = (row < rows)[:, None] & column_in_range[None, :]
    offset = row[:, None] * width + column[None, :]
    s = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=in_range, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        residual_offset = row[:, None] * residual_stride + column[None, :]
        residual = tl.load(residual_ptr + residual_offset, mask=in_range, other=0.0)
        # The sum is rounded before it is normalised, so that y belongs to the sum that is returned.
        rounded = (s + residual.to(tl.float32)).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offset, rounded, mask=in_range)
        s = rounded.to(tl.float32)
    mean = tl.sum(s, axis=1) / width
    centred = tl.where(column_in_range[None, :], s - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(rstd_ptr + row, rstd, mask=row < rows)
    y = centred * rstd[:, None]
    if HAS_WEIGHT:
        y *= tl.load(weight_ptr + column, mask=column_in_range, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + column, mask=column_in_range, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + offset, y.to(y_ptr.dtype.element_ty), mask=in_range)


@triton.jit
def _layer_norm_backward_kernel(
    grad_y_ptr: tl.tensor,  # (rows, width), rows grad_y_stride apart
    grad_sum_ptr: tl.tensor,  # (rows, width), rows grad_sum_stride apart
    s_ptr: tl.tensor,  # (rows, width), rows s_stride apart
    weight_ptr: tl.tensor,  # (width)
    mean_ptr: tl.tensor,  # (rows) fp32
    rstd_ptr: tl.tensor,  # (rows) fp32
    grad_s_ptr: tl.tensor,  # (rows, width)
    weight_sums_ptr: tl.tensor,  # (programs, width) fp32
    bias_sums_ptr: tl.tensor,  # (programs, width) fp32
    grad_y_stride: tl.tensor,
    grad_sum_stride: tl.tensor,
    s_stride: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    tiles: tl.tensor,  # of ROWS rows each, for every program
    HAS_GRAD_SUM: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WEIGHT_NEEDS_GRAD: tl.constexpr,
    BIAS_NEEDS_GRAD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    column_in_range = column < width
    weight = tl.full((BLOCK,), 1.0, tl.float32)
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + column, mask=column_in_range, other=0.0).to(tl.float32)
    weight_sum = tl.zeros((BLOCK,), tl.float32)
    bias_sum = tl.zeros((BLOCK,), tl.float32)
    for tile in range(0, tiles):
        row = (program * tiles + tile) * ROWS + tl.arange(0, ROWS)
        in_range = (row < rows)[:, None] & column_in_range[None, :]
        mean = tl.load(mean_ptr + row, mask=row < rows, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=row < rows, other=0.0)
        s = tl.load(s_ptr + row[:, None] * s_stride + column[None, :], mask=in_range, other=0.0).to(tl.float32)
        grad_y_offset = row[:, None] * grad_y_stride + column[None, :]
        grad_y = tl.load(grad_y_ptr + grad_y_offset, mask=in_range, other=0.0).to(tl.float32)
        normalised = tl.where(in_range, (s - mean[:, None]) * rstd[:, None], 0.0)
        if WEIGHT_NEEDS_GRAD:
            weight_sum += tl.sum(grad_y * normalised, axis=0)
        if BIAS_NEEDS_GRAD:
            bias_sum += tl.sum(grad_y, axis=0)
        scaled = grad_y * weight[None, :]
        mean_product = tl.sum(scaled * normalised, axis=1) / width
        mean_scaled = tl.sum(scaled, axis=1) / width
        grad_s = (scaled - mean_scaled[:, None] - normalised * mean_product[:, None]) * rstd[:, None]
        if HAS_GRAD_SUM:
            grad_sum_offset = row[:, None] * grad_sum_stride + column[None, :]
            grad_sum = tl.load(grad_sum_ptr + grad_sum_offset, mask=in_range, other=0.0)
            grad_s += grad_sum.to(tl.float32)
        offset = row[:, None] * width + column[None, :]
        tl.store(grad_s_ptr + offset, grad_s.to(grad_s_ptr.dtype.element_ty), mask=in_range)
    if WEIGHT_NEEDS_GRAD:
        tl.store(weight_sums_ptr + program * width + column, weight_sum, mask=column_in_range)
    if BIAS_NEEDS_GRAD:
        tl.store(bias_sums_ptr + program * width + column, bias_sum, mask=column_in_range)


# --- launchers


def allocate_layer_norm(x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Allocate y, s, mean and rstd of the forward pass; s is None without a residual."""
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    y = x.new_empty(x.shape, dtype=dtype)
    s = None if residual is None else x.new_empty(x.shape, dtype=dtype)
    mean, rstd = (x.new_empty(x.shape[:-1].numel(), dtype=wide) for _ in range(2))
    return y, s, mean, rstd


def launch_layer_norm_forward(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Compute y, s, mean and rstd, as `layer_norm_reference` does."""
    x_rows = as_rows(x)
    residual_rows = x_rows if residual is None else as_rows(residual)
    y, s, mean, rstd = allocate_layer_norm(x, residual)
    settings = choose_settings("layer_norm_forward", len(x_rows), x.shape[-1], y.dtype, x.device)
    launch(
        _layer_norm_forward_kernel,
        count_programs(len(x_rows), settings),
        x_rows,
        residual_rows,
        x_rows if weight is None else weight.contiguous(),
        x_rows if bias is None else bias.contiguous(),
        y,
        y if s is None else s,
        mean,
        rstd,
        x_rows.stride(0),
        residual_rows.stride(0),
        len(x_rows),
        x.shape[-1],
        eps,
        settings=settings,
        HAS_RESIDUAL=residual is not None,
        HAS_WEIGHT=weight is not None,
        HAS_BIAS=bias is not None,
    )
    return y, s, mean, rstd


def launch_layer_norm_backward(
    grad_y: Tensor,
    grad_sum: Tensor | None,
    s: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    needs_grad: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the gradients of s, weight and bias; those of weight and bias in fp32, None where not needed.

    Args:
        grad_y: (..., width), gradient of y.
        grad_sum: (..., width), gradient of the returned sum, or None.
        s: (..., width), what was normalised.
        weight: (width), or None for 1.
        mean: (rows) fp32.
        rstd: (rows) fp32.
        needs_grad: whether weight and bias need a gradient.
    """
    width = s.shape[-1]
    s_rows, grad_y_rows = as_rows(s), as_rows(grad_y)
    grad_sum_rows = grad_y_rows if grad_sum is None else as_rows(grad_sum)
    settings = choose_settings("layer_norm_backward", len(s_rows), width, s.dtype, s.device)
    tiles = count_programs(len(s_rows), settings)
    programs = min(tiles, 4 * find_target(s.device).multiprocessors)
    weight_sums, bias_sums = (
        s.new_empty((programs, width), dtype=torch.float32) if needed else None for needed in needs_grad
    )
    grad_s = s.new_empty(s.shape)
    launch(
        _layer_norm_backward_kernel,
        programs,
        grad_y_rows,
        grad_sum_rows,
        s_rows,
        s_rows if weight is None else weight.contiguous(),
        mean,
        rstd,
        grad_s,
        mean if weight_sums is None else weight_sums,
        mean if bias_sums is None else bias_sums,
        grad_y_rows.stride(0),
        grad_sum_rows.stride(0),
        s_rows.stride(0),
        len(s_rows),
        width,
        -(-tiles // max(1, programs)),
        settings=settings,
        HAS_GRAD_SUM=grad_sum is not None,
        HAS_WEIGHT=weight is not None,
        WEIGHT_NEEDS_GRAD=weight_sums is not None,
        BIAS_NEEDS_GRAD=bias_sums is not None,
    )
    grad_weight = None if weight_sums is None else weight_sums.sum(0)
    grad_bias = None if bias_sums is None else bias_sums.sum(0)
    return grad_s, grad_weight, grad_bias
