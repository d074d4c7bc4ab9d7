"""Triton kernel of linear_cross_entropy, and its launcher.

The kernel computes the losses of a chunk, and replaces the logits of the chunk by their gradient in the same buffer.
`cross_entropy.py` has the formulas.
"""

import torch
from torch import Tensor

from cram_kernels._cross_entropy_kernels import LossTerms, add_block, compute_gradient, compute_losses, load_target
from cram_kernels._launch import count_programs, launch
from cram_kernels._settings import choose_settings
from cram_kernels._triton import tl, triton

# Rows of a chunk are padded to a multiple of so many elements, so that the kernel can read 16 bytes at a time.
ROW_ALIGNMENT = 16


# --- kernels


@triton.jit
def _linear_cross_entropy_kernel(
    logits_ptr: tl.tensor,  # (rows, classes), rows stride apart: become the gradient of each row's loss
    target_ptr: tl.tensor,  # (rows) int64
    losses_ptr: tl.tensor,  # (rows) fp32
    padded: tl.tensor,  # elements of a row that may be read and written: the classes and the padding behind them
    stride: tl.tensor,
    rows: tl.tensor,
    classes: tl.tensor,
    ignore_index: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
    SMOOTHED: tl.constexpr,
    HELD: tl.constexpr,  # whether a block is a whole row
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    target, is_valid, is_class, target_logit, finite_logit = load_target(
        logits_ptr, target_ptr, row, stride, rows, classes, ignore_index
    )
    tl.debug_barrier()  # Another thread will overwrite the target's logit, so all threads must have read it.
    column = tl.arange(0, BLOCK)[None, :]
    row_ptr = logits_ptr + row[:, None] * stride + column
    row_max = tl.full((ROWS,), float("-inf"), tl.float32)
    exp_sum = tl.zeros((ROWS,), tl.float32)
    gap_sum = tl.zeros((ROWS,), tl.float32)
    # The padding is read and written too, because a mask that may end at any element would forbid wide loads.
    if HELD:
        in_buffer = (row < rows)[:, None] & (column < padded)
        in_range = is_valid[:, None] & (column < classes)
        x = tl.where(in_range, tl.load(row_ptr, mask=in_buffer, other=0.0).to(tl.float32), float("-inf"))
        row_max, exp_sum, gap_sum = add_block(x, in_range, finite_logit, row_max, exp_sum, gap_sum, SMOOTHED)
        loss, log_sum = compute_losses(
            is_class, target_logit, finite_logit, row_max, exp_sum, gap_sum, classes, label_smoothing, z_loss
        )
        grad = compute_gradient(x, column, target, row_max, log_sum, classes, label_smoothing, z_loss)
        grad = tl.where(is_valid[:, None], grad, 0.0).to(logits_ptr.dtype.element_ty)
        tl.store(row_ptr, grad, mask=in_buffer)
    else:
        for start in range(0, classes, BLOCK):
            in_buffer = (row < rows)[:, None] & (start + column < padded)
            in_range = is_valid[:, None] & (start + column < classes)
            x = tl.where(in_range, tl.load(row_ptr + start, mask=in_buffer, other=0.0).to(tl.float32), float("-inf"))
            row_max, exp_sum, gap_sum = add_block(x, in_range, finite_logit, row_max, exp_sum, gap_sum, SMOOTHED)
        loss, log_sum = compute_losses(
            is_class, target_logit, finite_logit, row_max, exp_sum, gap_sum, classes, label_smoothing, z_loss
        )
        for start in range(0, classes, BLOCK):
            in_buffer = (row < rows)[:, None] & (start + column < padded)
            x = tl.load(row_ptr + start, mask=in_buffer, other=0.0).to(tl.float32)
            grad = compute_gradient(x, start + column, target, row_max, log_sum, classes, label_smoothing, z_loss)
            grad = tl.where(is_valid[:, None], grad, 0.0).to(logits_ptr.dtype.element_ty)
            tl.store(row_ptr + start, grad, mask=in_buffer)
    tl.store(losses_ptr + row, tl.where(is_valid, loss, 0.0), mask=row < rows)


# --- launchers


def pad_classes(classes: int) -> int:
    """Return the number of classes, rounded up to a multiple of ROW_ALIGNMENT."""
    return classes + -classes % ROW_ALIGNMENT


def launch_linear_cross_entropy(logits: Tensor, target: Tensor, terms: LossTerms) -> Tensor:
    """Compute the losses (rows) of a chunk. Its logits (rows, classes) become the gradient of each row's loss.

    Up to `pad_classes(classes)` elements of a row are written, as far as the next row does not begin before.
    """
    losses = logits.new_empty(target.shape, dtype=torch.float32)
    padded = min(logits.stride(0), pad_classes(logits.shape[1]))
    settings = choose_settings("linear_cross_entropy", len(logits), padded, logits.dtype, logits.device)
    launch(
        _linear_cross_entropy_kernel,
        count_programs(len(logits), settings),
        logits,
        target,
        losses,
        padded,
        logits.stride(0),
        *logits.shape,
        *terms,
        settings=settings,
        SMOOTHED=terms.label_smoothing != 0,
        HELD=settings.block >= padded,
    )
    return losses
