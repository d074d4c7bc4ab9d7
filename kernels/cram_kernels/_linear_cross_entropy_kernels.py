"""Triton kernel of linear_cross_entropy, and its launcher.

The kernel computes the losses of a chunk, and replaces the logits of the chunk by their gradient in the same buffer.
`cross_entropy.py` has the formulas.
"""

import torch
from torch import Tensor

from cram_kernels._cross_entropy_kernels import LossTerms, describe_vectors
from cram_kernels._launch import count_programs, launch
from cram_kernels._loss_functions import (
    add_block,
    compute_gradient,
    compute_losses,
    list_fringe,
    load_target,
    split_row,
    store_target_gradient,
)
from cram_kernels._settings import choose_settings
from cram_kernels._triton import tl, triton

# Rows of a chunk are padded to a multiple of so many elements, so that they begin between two vectors of 16 bytes.
ROW_ALIGNMENT = 16


# --- kernels


@triton.jit
def _linear_cross_entropy_kernel(
    logits_ptr: tl.tensor,  # (rows, classes), rows stride apart: become the gradient of each row's loss
    target_ptr: tl.tensor,  # (rows) int64
    losses_ptr: tl.tensor,  # (rows) fp32
    stride: tl.tensor,
    rows: tl.tensor,
    classes: tl.tensor,
    ignore_index: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
    SMOOTHED: tl.constexpr,
    HELD: tl.constexpr,  # whether a block is a whole row
    FRINGE: tl.constexpr,  # whether a row may have one
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    target, is_valid, target_logit, finite_logit = load_target(
        logits_ptr, target_ptr, row, stride, rows, classes, ignore_index
    )
    row_max = tl.full((ROWS,), float("-inf"), tl.float32)
    exp_sum = tl.zeros((ROWS,), tl.float32)
    gap_sum = tl.zeros((ROWS,), tl.float32)
    row_start = row * stride
    body_start, head, body = split_row(row_start, classes, VECTOR)
    if FRINGE:
        column, exists = list_fringe(head, body, classes, VECTOR)
        fringe_ptr, in_fringe = logits_ptr + row_start[:, None] + column, is_valid[:, None] & exists
        fringe = tl.load(fringe_ptr, mask=in_fringe, other=float("-inf")).to(tl.float32)
        row_max, exp_sum, gap_sum = add_block(fringe, in_fringe, finite_logit, row_max, exp_sum, gap_sum, SMOOTHED)
    lane = tl.arange(0, BLOCK)[None, :]
    body_ptr = logits_ptr + body_start[:, None] + lane
    x = tl.zeros((ROWS, BLOCK), tl.float32)
    for block in range(0, BLOCK if HELD else classes, BLOCK):
        in_range = is_valid[:, None] & (block + lane < body[:, None])
        # The second pass should find the row in the cache.
        x = tl.load(body_ptr + block, mask=in_range, other=float("-inf"), eviction_policy="evict_last").to(tl.float32)
        row_max, exp_sum, gap_sum = add_block(x, in_range, finite_logit, row_max, exp_sum, gap_sum, SMOOTHED)
    loss, log_sum = compute_losses(
        target, target_logit, finite_logit, row_max, exp_sum, gap_sum, classes, label_smoothing, z_loss
    )
    tl.store(losses_ptr + row, tl.where(is_valid, loss, 0.0), mask=row < rows)
    # The gradient of an ignored row is 0 times a finite number.
    scale = tl.where(is_valid, 1.0, 0.0)
    row_max, log_sum = tl.where(is_valid, row_max, 0.0), tl.where(is_valid, log_sum, 0.0)
    tl.debug_barrier()  # Threads overwrite logits, the target's among them, that other threads must have read.
    if FRINGE:
        column, exists = list_fringe(head, body, classes, VECTOR)
        fringe_ptr, in_fringe = logits_ptr + row_start[:, None] + column, (row < rows)[:, None] & exists
        fringe = tl.load(fringe_ptr, mask=in_fringe & is_valid[:, None], other=0.0).to(tl.float32)
        fringe_grad = compute_gradient(
            fringe, row_max[:, None], log_sum[:, None], scale[:, None], classes, label_smoothing, z_loss
        ).to(logits_ptr.dtype.element_ty)
        tl.store(fringe_ptr, fringe_grad, mask=in_fringe)
    for block in range(0, BLOCK if HELD else classes, BLOCK):
        in_range = (row < rows)[:, None] & (block + lane < body[:, None])
        if not HELD:
            valid_range = in_range & is_valid[:, None]
            x = tl.load(body_ptr + block, mask=valid_range, other=0.0, eviction_policy="evict_first").to(tl.float32)
        grad = compute_gradient(
            x, row_max[:, None], log_sum[:, None], scale[:, None], classes, label_smoothing, z_loss
        ).to(logits_ptr.dtype.element_ty)
        tl.store(body_ptr + block, grad, mask=in_range)
    row_ptr = logits_ptr + row_start
    store_target_gradient(row_ptr, target, target_logit, row_max, log_sum, scale, classes, label_smoothing, z_loss)


# --- launchers


def pad_classes(classes: int) -> int:
    """Return the number of classes, rounded up to a multiple of ROW_ALIGNMENT."""
    return classes + -classes % ROW_ALIGNMENT


def launch_linear_cross_entropy(logits: Tensor, target: Tensor, terms: LossTerms) -> Tensor:
    """Compute the losses (rows) of a chunk. Its logits (rows, classes) become the gradient of each row's loss."""
    losses = logits.new_empty(target.shape, dtype=torch.float32)
    settings = choose_settings("linear_cross_entropy", len(logits), logits.shape[1], logits.dtype, logits.device)
    launch(
        _linear_cross_entropy_kernel,
        count_programs(len(logits), settings),
        logits,
        target,
        losses,
        logits.stride(0),
        *logits.shape,
        *terms,
        settings=settings,
        SMOOTHED=terms.label_smoothing != 0,
        HELD=settings.block >= logits.shape[1],
        **describe_vectors(logits),
    )
    return losses
