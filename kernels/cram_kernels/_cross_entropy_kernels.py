"""Triton kernels of cross_entropy, their launchers, and what linear_cross_entropy's kernel shares with them.

`cross_entropy.py` has the formulas. The log-sum-exp of a row is kept in two parts: the largest logit `row_max`, and
`log_sum`, how far the log-sum-exp lies above it. A large offset that all logits of a row share then costs no digits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cram_kernels._launch import as_rows, count_programs, launch
from cram_kernels._settings import choose_settings
from cram_kernels._triton import tl, triton


class LossTerms(NamedTuple):
    """The numbers that define the loss of a row, in the order in which kernels and ops take them."""

    ignore_index: int
    label_smoothing: float
    z_loss: float


# --- device functions, shared with linear_cross_entropy


@triton.jit
def load_target(
    logits_ptr: tl.tensor,
    target_ptr: tl.tensor,
    row: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    classes: tl.tensor,
    ignore_index: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Load the targets of some rows.

    Returns the target; whether the row is valid; whether the target is a class; the logit of the target; and this logit
    where it is finite, else 0.
    """
    target = tl.load(target_ptr + row, mask=row < rows, other=ignore_index)
    is_valid = (row < rows) & (target != ignore_index)
    is_class = is_valid & (target >= 0) & (target < classes)
    target_logit = tl.load(logits_ptr + row * stride + target, mask=is_class, other=0.0).to(tl.float32)
    return target, is_valid, is_class, target_logit, tl.where(tl.abs(target_logit) < float("inf"), target_logit, 0.0)


@triton.jit
def add_block(
    x: tl.tensor,
    in_range: tl.tensor,
    finite_logit: tl.tensor,
    row_max: tl.tensor,
    exp_sum: tl.tensor,
    gap_sum: tl.tensor,
    SMOOTHED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Add a block of logits x to the sums of its rows; x must be -inf where it is not in range.

    Returns the largest logit so far, the sum of exp(x - largest logit), and the sum of finite_logit - x.
    """
    new_max = tl.maximum(row_max, tl.max(x, axis=1))
    # Blocks of nothing but -inf at the start of a row must not turn the rest into NaN. A row of nothing but -inf ends
    # as NaN.
    offset = tl.where(new_max == float("-inf"), 0.0, new_max)
    # tl.max ignores NaN, but the sum does not.
    exp_sum = exp_sum * tl.exp(row_max - offset) + tl.sum(tl.exp(x - offset[:, None]), axis=1)
    if SMOOTHED:
        gap_sum += tl.sum(tl.where(in_range, finite_logit[:, None] - x, 0.0), axis=1)
    return new_max, exp_sum, gap_sum


@triton.jit
def compute_losses(
    is_class: tl.tensor,
    target_logit: tl.tensor,
    finite_logit: tl.tensor,
    row_max: tl.tensor,
    exp_sum: tl.tensor,
    gap_sum: tl.tensor,
    classes: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """Return the losses of rows and their log_sum; both are NaN where the target is not a class."""
    log_sum = tl.where(is_class, tl.log(exp_sum), float("nan"))
    lse = row_max + log_sum
    mean_gap = row_max - finite_logit + gap_sum / classes
    loss = (1 - label_smoothing) * (row_max - target_logit) + log_sum + label_smoothing * mean_gap + z_loss * lse * lse
    return loss, log_sum


@triton.jit
def compute_gradient(
    x: tl.tensor,
    column: tl.tensor,
    target: tl.tensor,
    row_max: tl.tensor,
    log_sum: tl.tensor,
    classes: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
) -> tl.tensor:
    """Return the gradients of the losses of rows for a block x of their logits."""
    shares = tl.exp(x - row_max[:, None] - log_sum[:, None]) * (1 + 2 * z_loss * (row_max + log_sum))[:, None]
    return shares - label_smoothing / classes - tl.where(column == target[:, None], 1 - label_smoothing, 0.0)


# --- kernels


@triton.jit
def _cross_entropy_forward_kernel(
    logits_ptr: tl.tensor,  # (rows, classes), rows stride apart
    target_ptr: tl.tensor,  # (rows) int64
    losses_ptr: tl.tensor,  # (rows) fp32
    lse_parts_ptr: tl.tensor,  # (2, rows) fp32
    stride: tl.tensor,
    rows: tl.tensor,
    classes: tl.tensor,
    ignore_index: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
    SMOOTHED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    _, is_valid, is_class, target_logit, finite_logit = load_target(
        logits_ptr, target_ptr, row, stride, rows, classes, ignore_index
    )
    column = tl.arange(0, BLOCK)[None, :]
    row_ptr = logits_ptr + row[:, None] * stride + column
    row_max = tl.full((ROWS,), float("-inf"), tl.float32)
    exp_sum = tl.zeros((ROWS,), tl.float32)
    gap_sum = tl.zeros((ROWS,), tl.float32)
    for start in range(0, classes, BLOCK):
        in_range = is_valid[:, None] & (start + column < classes)
        x = tl.load(row_ptr + start, mask=in_range, other=float("-inf")).to(tl.float32)
        row_max, exp_sum, gap_sum = add_block(x, in_range, finite_logit, row_max, exp_sum, gap_sum, SMOOTHED)
    loss, log_sum = compute_losses(
        is_class, target_logit, finite_logit, row_max, exp_sum, gap_sum, classes, label_smoothing, z_loss
    )
    tl.store(losses_ptr + row, tl.where(is_valid, loss, 0.0), mask=row < rows)
    tl.store(lse_parts_ptr + row, row_max, mask=row < rows)
    tl.store(lse_parts_ptr + rows + row, log_sum, mask=row < rows)


@triton.jit
def _cross_entropy_backward_kernel(
    grad_losses_ptr: tl.tensor,  # (rows), grad_stride apart
    logits_ptr: tl.tensor,  # (rows, classes), rows stride apart
    target_ptr: tl.tensor,  # (rows) int64
    lse_parts_ptr: tl.tensor,  # (2, rows) fp32
    grad_logits_ptr: tl.tensor,  # (rows, classes)
    grad_stride: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    classes: tl.tensor,
    ignore_index: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    target = tl.load(target_ptr + row, mask=row < rows, other=ignore_index)
    is_valid = (row < rows) & (target != ignore_index)
    # Everything of an ignored row is read as 0, which makes its gradient 0.
    grad_loss = tl.load(grad_losses_ptr + row * grad_stride, mask=is_valid, other=0.0).to(tl.float32)
    row_max = tl.load(lse_parts_ptr + row, mask=is_valid, other=0.0)
    log_sum = tl.load(lse_parts_ptr + rows + row, mask=is_valid, other=0.0)
    column = tl.arange(0, BLOCK)[None, :]
    for start in range(0, classes, BLOCK):
        in_range = (row < rows)[:, None] & (start + column < classes)
        offset = row[:, None] * stride + start + column
        x = tl.load(logits_ptr + offset, mask=in_range & is_valid[:, None], other=0.0).to(tl.float32)
        grad_x = compute_gradient(x, start + column, target, row_max, log_sum, classes, label_smoothing, z_loss)
        grad_x = (grad_x * grad_loss[:, None]).to(grad_logits_ptr.dtype.element_ty)
        tl.store(grad_logits_ptr + row[:, None] * classes + start + column, grad_x, mask=in_range)


# --- launchers


def allocate_cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate the losses (rows) and the parts of the log-sum-exp (2, rows), in fp32 or wider."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(target.shape, dtype=wide), logits.new_empty((2, *target.shape), dtype=wide)


def launch_cross_entropy_forward(logits: Tensor, target: Tensor, terms: LossTerms) -> tuple[Tensor, Tensor]:
    """Compute the losses (rows) and the parts of the log-sum-exp (2, rows) of logits (rows, classes)."""
    logit_rows = as_rows(logits)
    losses, lse_parts = allocate_cross_entropy(logits, target)
    settings = choose_settings("cross_entropy_forward", len(logits), logits.shape[1], logits.dtype, logits.device)
    launch(
        _cross_entropy_forward_kernel,
        count_programs(len(logit_rows), settings),
        logit_rows,
        target.contiguous(),
        losses,
        lse_parts,
        logit_rows.stride(0),
        *logit_rows.shape,
        *terms,
        settings=settings,
        SMOOTHED=terms.label_smoothing != 0,
    )
    return losses, lse_parts


def launch_cross_entropy_backward(
    grad_losses: Tensor, logits: Tensor, target: Tensor, lse_parts: Tensor, terms: LossTerms
) -> Tensor:
    """Compute the gradient of logits (rows, classes), given that of the losses (rows)."""
    logit_rows = as_rows(logits)
    grad_logits = logits.new_empty(logits.shape)
    settings = choose_settings("cross_entropy_backward", len(logits), logits.shape[1], logits.dtype, logits.device)
    launch(
        _cross_entropy_backward_kernel,
        count_programs(len(logit_rows), settings),
        grad_losses,
        logit_rows,
        target.contiguous(),
        lse_parts,
        grad_logits,
        grad_losses.stride(0),
        logit_rows.stride(0),
        *logit_rows.shape,
        *terms,
        settings=settings,
    )
    return grad_logits
