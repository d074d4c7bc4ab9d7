"""Triton kernels of cross_entropy, and their launchers.

`cross_entropy.py` has the formulas, `_loss_functions.py` what linear_cross_entropy's kernel shares with these.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cram_kernels._launch import as_rows, count_programs, launch
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


class LossTerms(NamedTuple):
    """The numbers that define the loss of a row, in the order in which kernels and ops take them."""

    ignore_index: int
    label_smoothing: float
    z_loss: float


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
    for block in range(0, classes, BLOCK):
        in_range = is_valid[:, None] & (block + lane < body[:, None])
        x_ptr = logits_ptr + body_start[:, None] + block + lane
        x = tl.load(x_ptr, mask=in_range, other=float("-inf")).to(tl.float32)
        row_max, exp_sum, gap_sum = add_block(x, in_range, finite_logit, row_max, exp_sum, gap_sum, SMOOTHED)
    loss, log_sum = compute_losses(
        target, target_logit, finite_logit, row_max, exp_sum, gap_sum, classes, label_smoothing, z_loss
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
    FRINGE: tl.constexpr,  # whether a row may have one
    CONTIGUOUS: tl.constexpr,  # whether stride is the number of classes
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    target, is_valid, target_logit, _ = load_target(logits_ptr, target_ptr, row, stride, rows, classes, ignore_index)
    # Everything of an ignored row is read as 0, which makes its gradient 0.
    grad_loss = tl.load(grad_losses_ptr + row * grad_stride, mask=is_valid, other=0.0).to(tl.float32)
    row_max = tl.load(lse_parts_ptr + row, mask=is_valid, other=0.0)
    log_sum = tl.load(lse_parts_ptr + rows + row, mask=is_valid, other=0.0)
    row_start, grad_row_start = row * stride, row * classes
    body_start, head, body = split_row(row_start, classes, VECTOR)
    # The compiler sees that these are multiples of VECTOR too, which lets it store 16 bytes at a time.
    if CONTIGUOUS:
        grad_body_start = body_start
    elif FRINGE:
        grad_body_start = grad_row_start + head
    else:
        grad_body_start = grad_row_start // VECTOR * VECTOR
    if FRINGE:
        column, exists = list_fringe(head, body, classes, VECTOR)
        fringe_ptr, in_fringe = logits_ptr + row_start[:, None] + column, (row < rows)[:, None] & exists
        fringe = tl.load(fringe_ptr, mask=in_fringe & is_valid[:, None], other=0.0).to(tl.float32)
        fringe_grad = compute_gradient(
            fringe, row_max[:, None], log_sum[:, None], grad_loss[:, None], classes, label_smoothing, z_loss
        ).to(grad_logits_ptr.dtype.element_ty)
        tl.store(grad_logits_ptr + grad_row_start[:, None] + column, fringe_grad, mask=in_fringe)
    lane = tl.arange(0, BLOCK)[None, :]
    for block in range(0, classes, BLOCK):
        in_range = (row < rows)[:, None] & (block + lane < body[:, None])
        x_ptr = logits_ptr + body_start[:, None] + block + lane
        x = tl.load(x_ptr, mask=in_range & is_valid[:, None], other=0.0).to(tl.float32)
        grad = compute_gradient(
            x, row_max[:, None], log_sum[:, None], grad_loss[:, None], classes, label_smoothing, z_loss
        ).to(grad_logits_ptr.dtype.element_ty)
        tl.store(grad_logits_ptr + grad_body_start[:, None] + block + lane, grad, mask=in_range)
    grad_row_ptr = grad_logits_ptr + grad_row_start
    store_target_gradient(
        grad_row_ptr, target, target_logit, row_max, log_sum, grad_loss, classes, label_smoothing, z_loss
    )


# --- launchers


def allocate_cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate the losses (rows) and the parts of the log-sum-exp (2, rows), in fp32 or wider."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(target.shape, dtype=wide), logits.new_empty((2, *target.shape), dtype=wide)


def describe_vectors(rows: Tensor) -> dict[str, Any]:
    """Return the constants VECTOR, the elements of 16 bytes, and FRINGE, whether rows may begin or end between such."""
    vector = 16 // rows.element_size()
    return {"VECTOR": vector, "FRINGE": bool(rows.shape[1] % vector or rows.stride(0) % vector)}


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
        **describe_vectors(logit_rows),
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
        CONTIGUOUS=logit_rows.stride(0) == logits.shape[1],
        **describe_vectors(logit_rows),
    )
    return grad_logits
