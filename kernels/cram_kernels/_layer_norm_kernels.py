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

# Most programs of the backward kernel on a multiprocessor, about as many as its registers allow at a time, and the
# fewest tiles of a program: each program stores sums of its own, which should be few beside the rows.
PROGRAMS_PER_MULTIPROCESSOR, LEAST_TILES = 2, 8

# --- kernels

# A row is held as a tuple of chunks of BLOCK columns: three chunks of 256 for a width of 768, instead of one block of
# 1024. A chunk is what one warp, or a few for wide rows, load at once. Most rows then need no barrier for their sums.


@triton.jit
def _load(ptr: tl.tensor, in_range: tl.tensor) -> tl.tensor:
    """Load a chunk as fp32, 0 where it is not in range."""
    return tl.load(ptr, mask=in_range, other=0.0).to(tl.float32)


@triton.jit
def _mean(total: tl.tensor, WIDTH: tl.constexpr) -> tl.tensor:
    """Return the mean of each row (ROWS, 1), given the sum of its chunks (ROWS, BLOCK).

    On a GPU `/` is wrong in the last two bits, by which a row of one value at a large offset would get a variance. What
    it leaves is therefore divided once more.
    """
    row_sum = tl.sum(total, axis=1)
    mean = row_sum / WIDTH
    return (mean + tl.fma(-mean, WIDTH * 1.0, row_sum) / WIDTH)[:, None]


@triton.jit
def _inverse_root(variance: tl.tensor) -> tl.tensor:
    """Return 1 / sqrt(variance). tl.rsqrt alone takes a number below 2^-126 as 0, which torch does not."""
    is_tiny = variance < 2.0**-64
    return tl.rsqrt(tl.where(is_tiny, variance * 2.0**64, variance)) * tl.where(is_tiny, 2.0**32, 1.0)


@triton.jit
def _layer_norm_forward_kernel(
    x_ptr: tl.tensor,  # (rows, WIDTH), rows x_stride apart
    residual_ptr: tl.tensor,  # (rows, WIDTH), rows residual_stride apart
    weight_ptr: tl.tensor,  # (WIDTH)
    bias_ptr: tl.tensor,  # (WIDTH)
    y_ptr: tl.tensor,  # (rows, WIDTH)
    sum_ptr: tl.tensor,  # (rows, WIDTH)
    mean_ptr: tl.tensor,  # (rows) fp32
    rstd_ptr: tl.tensor,  # (rows) fp32
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    rows: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    CHUNKS: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    # Of the shape of x, so that weight and bias are loaded in the layout of x.
    lane = tl.zeros((ROWS, BLOCK), tl.int32) + tl.arange(0, BLOCK)[None, :]
    chunks, weights, biases = (), (), ()
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for index in tl.static_range(CHUNKS):
        column = index * BLOCK + lane
        in_range = (row < rows) & (column < WIDTH)
        s = _load(x_ptr + row * x_stride + column, in_range)
        if HAS_RESIDUAL:
            s += _load(residual_ptr + row * residual_stride + column, in_range)
            # The sum is rounded before it is normalised, so that y belongs to the sum that is returned.
            rounded = s.to(sum_ptr.dtype.element_ty)
            tl.store(sum_ptr + row * WIDTH + column, rounded, mask=in_range)
            s = rounded.to(tl.float32)
        if HAS_WEIGHT:
            weights += (_load(weight_ptr + column, column < WIDTH),)
        if HAS_BIAS:
            biases += (_load(bias_ptr + column, column < WIDTH),)
        total += s
        chunks += (s,)
    mean = _mean(total, WIDTH)
    rest = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for index in tl.static_range(CHUNKS):
        centred = tl.where(index * BLOCK + lane < WIDTH, chunks[index] - mean, 0.0)
        rest += centred
        squares += centred * centred
    # At a large offset the mean is rounded by an amount that counts beside the deviations of fp32 inputs.
    shift = _mean(rest, WIDTH) if y_ptr.dtype.element_ty == tl.float32 else 0.0
    rstd = _inverse_root(_mean(squares, WIDTH) - shift * shift + eps)
    tl.store(mean_ptr + row, mean + shift, mask=row < rows)
    tl.store(rstd_ptr + row, rstd, mask=row < rows)
    for index in tl.static_range(CHUNKS):
        column = index * BLOCK + lane
        y = (chunks[index] - mean - shift) * rstd
        if HAS_WEIGHT:
            y *= weights[index]
        if HAS_BIAS:
            y += biases[index]
        tl.store(y_ptr + row * WIDTH + column, y.to(y_ptr.dtype.element_ty), mask=(row < rows) & (column < WIDTH))


@triton.jit
def _layer_norm_backward_kernel(
    grad_y_ptr: tl.tensor,  # (rows, WIDTH), rows grad_y_stride apart
    grad_sum_ptr: tl.tensor,  # (rows, WIDTH), rows grad_sum_stride apart
    s_ptr: tl.tensor,  # (rows, WIDTH), rows s_stride apart
    weight_ptr: tl.tensor,  # (WIDTH)
    mean_ptr: tl.tensor,  # (rows) fp32
    rstd_ptr: tl.tensor,  # (rows) fp32
    grad_s_ptr: tl.tensor,  # (rows, WIDTH)
    sums_ptr: tl.tensor,  # (programs, 2 or 1, WIDTH) fp32: sums for the gradients of weight and bias
    grad_y_stride: tl.tensor,
    grad_sum_stride: tl.tensor,
    s_stride: tl.tensor,
    rows: tl.tensor,
    tiles: tl.tensor,  # of ROWS rows each, for every program
    WIDTH: tl.constexpr,
    HAS_GRAD_SUM: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WEIGHT_NEEDS_GRAD: tl.constexpr,
    BIAS_NEEDS_GRAD: tl.constexpr,
    STAGES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    CHUNKS: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    program = tl.program_id(0).to(tl.int64)
    lane = tl.zeros((ROWS, BLOCK), tl.int32) + tl.arange(0, BLOCK)[None, :]
    weights, weight_sums, bias_sums = (), (), ()
    for index in tl.static_range(CHUNKS):
        column = index * BLOCK + lane
        if HAS_WEIGHT:
            weights += (_load(weight_ptr + column, column < WIDTH),)
        weight_sums += (tl.zeros((ROWS, BLOCK), tl.float32),)
        bias_sums += (tl.zeros((ROWS, BLOCK), tl.float32),)
    for tile in tl.range(0, tiles, num_stages=STAGES):
        row = (program * tiles + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        mean = tl.load(mean_ptr + row, mask=row < rows, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=row < rows, other=0.0)
        # All of a tile is loaded before its sums, because no load can be moved over the barriers that sums may need.
        chunks, grads, grad_sums = (), (), ()
        rest = tl.zeros((ROWS, BLOCK), tl.float32)
        for index in tl.static_range(CHUNKS):
            column = index * BLOCK + lane
            in_range = (row < rows) & (column < WIDTH)
            centred = tl.where(in_range, _load(s_ptr + row * s_stride + column, in_range) - mean, 0.0)
            rest += centred
            chunks += (centred,)
            grads += (_load(grad_y_ptr + row * grad_y_stride + column, in_range),)
            if HAS_GRAD_SUM:
                grad_sums += (_load(grad_sum_ptr + row * grad_sum_stride + column, in_range),)
        shift = _mean(rest, WIDTH) if grad_s_ptr.dtype.element_ty == tl.float32 else 0.0
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        product_total = tl.zeros((ROWS, BLOCK), tl.float32)
        new_weight_sums, new_bias_sums = (), ()
        for index in tl.static_range(CHUNKS):
            in_range = (row < rows) & (index * BLOCK + lane < WIDTH)
            normalised = (chunks[index] - shift) * rstd
            scaled = grads[index] * weights[index] if HAS_WEIGHT else grads[index]
            # Where an element is not in range, its gradient is 0.
            total += scaled
            product_total += scaled * normalised
            new_weight_sums += (weight_sums[index] + grads[index] * normalised,)
            new_bias_sums += (bias_sums[index] + grads[index],)
        weight_sums, bias_sums = new_weight_sums, new_bias_sums
        mean_scaled, mean_product = _mean(total, WIDTH), _mean(product_total, WIDTH)
        for index in tl.static_range(CHUNKS):
            column = index * BLOCK + lane
            normalised = (chunks[index] - shift) * rstd
            scaled = grads[index] * weights[index] if HAS_WEIGHT else grads[index]
            grad_s = (scaled - mean_scaled - normalised * mean_product) * rstd
            if HAS_GRAD_SUM:
                grad_s += grad_sums[index]
            in_range = (row < rows) & (column < WIDTH)
            tl.store(grad_s_ptr + row * WIDTH + column, grad_s.to(grad_s_ptr.dtype.element_ty), mask=in_range)
    program_sums_ptr = sums_ptr + program * ((WEIGHT_NEEDS_GRAD + BIAS_NEEDS_GRAD) * WIDTH)
    for index in tl.static_range(CHUNKS):
        column = index * BLOCK + tl.arange(0, BLOCK)
        if WEIGHT_NEEDS_GRAD:
            tl.store(program_sums_ptr + column, tl.sum(weight_sums[index], axis=0), mask=column < WIDTH)
        if BIAS_NEEDS_GRAD:
            bias_sums_ptr = program_sums_ptr + WEIGHT_NEEDS_GRAD * WIDTH
            tl.store(bias_sums_ptr + column, tl.sum(bias_sums[index], axis=0), mask=column < WIDTH)


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
        eps,
        settings=settings,
        WIDTH=x.shape[-1],
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
    programs = min(-(-tiles // LEAST_TILES), PROGRAMS_PER_MULTIPROCESSOR * find_target(s.device).multiprocessors)
    sums = s.new_empty((programs, sum(needs_grad), width), dtype=torch.float32)
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
        sums,
        grad_y_rows.stride(0),
        grad_sum_rows.stride(0),
        s_rows.stride(0),
        len(s_rows),
        -(-tiles // max(1, programs)),
        settings=settings,
        WIDTH=width,
        HAS_GRAD_SUM=grad_sum is not None,
        HAS_WEIGHT=weight is not None,
        WEIGHT_NEEDS_GRAD=needs_grad[0],
        BIAS_NEEDS_GRAD=needs_grad[1],
        STAGES=settings.stages,
    )
    grads = iter(sums.sum(0)) if any(needs_grad) else iter(())
    grad_weight, grad_bias = (next(grads) if needed else None for needed in needs_grad)
    return grad_s, grad_weight, grad_bias
