"""Triton kernels of cross_entropy, their launchers, and what linear_cross_entropy's kernel shares with them.

`cross_entropy.py` has the formulas. The log-sum-exp of a row is kept in two parts: the largest logit `row_max`, and
`log_sum`, how far the log-sum-exp lies above it. A large offset that all logits of a row share then costs no digits.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cram_kernels._launch import as_rows, count_programs, launch
from cram_kernels._settings import choose_settings
from cram_kernels._triton import exp, tl, triton


class LossTerms(NamedTuple):
    """The numbers that define the loss of a row, in the order in which kernels and ops take them."""

    ignore_index: int
    label_smoothing: float
    z_loss: float


# --- device functions, shared with linear_cross_entropy


@triton.jit
def load_class(
    target_ptr: tl.tensor, row: tl.tensor, rows: tl.tensor, classes: tl.tensor, ignore_index: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Load the targets of some rows. Returns the class, int32, -1 where it is none, and whether the row is valid."""
    target = tl.load(target_ptr + row, mask=row < rows, other=ignore_index)
    is_valid = (row < rows) & (target != ignore_index)
    return tl.where(is_valid & (target >= 0) & (target < classes), target, -1).to(tl.int32), is_valid


@triton.jit
def load_target(
    logits_ptr: tl.tensor,
    target_ptr: tl.tensor,
    row: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    classes: tl.tensor,
    ignore_index: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Load the logits of the targets of some rows.

    Returns the class of the target, int32, -1 where it is none; whether the row is valid; the logit of the target; and
    this logit where it is finite, else 0.
    """
    target, is_valid = load_class(target_ptr, row, rows, classes, ignore_index)
    target_logit = tl.load(logits_ptr + row * stride + target, mask=target >= 0, other=0.0).to(tl.float32)
    return target, is_valid, target_logit, tl.where(tl.abs(target_logit) < float("inf"), target_logit, 0.0)


@triton.jit
def split_row(row_start: tl.tensor, classes: tl.tensor, VECTOR: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Find the body of each row: its whole vectors, which are VECTOR elements and 16 bytes each.

    The up to VECTOR - 1 elements on either side of the body are the fringe. A row that begins and ends between two
    vectors has none. Because the fringe is read for itself, the body can be read 16 bytes at a time in every row.

    Returns where the body begins, counted like `row_start`, how many elements of the row precede it, and how many it
    has, all (rows).
    """
    body_start = (row_start + (VECTOR - 1)) // VECTOR * VECTOR
    head = (body_start - row_start).to(tl.int32)
    return body_start, head, tl.maximum(classes - head, 0) // VECTOR * VECTOR


@triton.jit
def list_fringe(
    head: tl.tensor, body: tl.tensor, classes: tl.tensor, VECTOR: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return the columns of the fringe, (rows, 2 * VECTOR), and which of them exist."""
    # Even lanes take what precedes the body, odd lanes what follows it. In the order of the columns, the compiler would
    # give a thread eight of them.
    lane = tl.arange(0, 2 * VECTOR)[None, :]
    precedes, index = lane % 2 == 0, lane // 2
    column = tl.where(precedes, index, index + (head + body)[:, None])
    return column, (column < classes) & ((index < head[:, None]) | (lane % 2 == 1))


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
    block_sum = tl.sum(exp(x - offset[:, None]), axis=1)
    exp_sum = exp_sum * exp(row_max - offset) + block_sum
    if SMOOTHED:
        gap_sum += tl.sum(tl.where(in_range, finite_logit[:, None] - x, 0.0), axis=1)
    return new_max, exp_sum, gap_sum


@triton.jit
def compute_losses(
    target: tl.tensor,
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
    log_sum = tl.where(target >= 0, tl.log(exp_sum), float("nan"))
    lse = row_max + log_sum
    mean_gap = row_max - finite_logit + gap_sum / classes
    loss = (1 - label_smoothing) * (row_max - target_logit) + log_sum + label_smoothing * mean_gap + z_loss * lse * lse
    return loss, log_sum


@triton.jit
def compute_gradient(
    x: tl.tensor,
    row_max: tl.tensor,
    log_sum: tl.tensor,
    scale: tl.tensor,
    classes: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
) -> tl.tensor:
    """Return scale * the gradients of the losses of rows, for a block x of their logits, as if none were the target's.

    All tensors but x have a value for each row, and the dimensions of x. `store_target_gradient` comes afterwards.
    """
    shares = exp(x - row_max - log_sum)
    return shares * (scale * (1 + 2 * z_loss * (row_max + log_sum))) - scale * (label_smoothing / classes)


@triton.jit
def store_target_gradient(
    grad_row_ptr: tl.tensor,
    target: tl.tensor,
    target_logit: tl.tensor,
    row_max: tl.tensor,
    log_sum: tl.tensor,
    scale: tl.tensor,
    classes: tl.tensor,
    label_smoothing: tl.tensor,
    z_loss: tl.tensor,
) -> None:
    """Store the gradients of the targets' logits over what was stored there: three instructions fewer an element."""
    grad = compute_gradient(target_logit, row_max, log_sum, scale, classes, label_smoothing, z_loss)
    grad -= scale * (1 - label_smoothing)
    tl.debug_barrier()  # Another thread has stored there.
    tl.store(grad_row_ptr + target, grad.to(grad_row_ptr.dtype.element_ty), mask=target >= 0)


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
