"""Device functions of the loss kernels, which cross_entropy and linear_cross_entropy share.

`cross_entropy.py` has the formulas. A row of logits is read as a body of whole vectors of 16 bytes and a fringe beside
it. The log-sum-exp of a row is kept in two parts: the largest logit `row_max`, and `log_sum`, how far the log-sum-exp
lies above it. A large offset that all logits of a row share then costs no digits.
"""

from cram_kernels._triton import exp, tl, triton


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

    Returns four tensors (rows): the class of the target as int32, -1 where the target is not a class; whether the row
    is valid; the logit of the target in fp32; and this logit where it is finite, else 0.
    """
    target = tl.load(target_ptr + row, mask=row < rows, other=ignore_index)
    is_valid = (row < rows) & (target != ignore_index)
    target = tl.where(is_valid & (target >= 0) & (target < classes), target, -1).to(tl.int32)
    target_logit = tl.load(logits_ptr + row * stride + target, mask=target >= 0, other=0.0).to(tl.float32)
    return target, is_valid, target_logit, tl.where(tl.abs(target_logit) < float("inf"), target_logit, 0.0)


@triton.jit
def split_row(row_start: tl.tensor, classes: tl.tensor, VECTOR: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Find the body of each row: its whole vectors, which are VECTOR elements and 16 bytes each.

    The up to VECTOR - 1 elements on either side of the body are the fringe. A row that begins and ends between two
    vectors has none. Because the fringe is read for itself, the body can be read 16 bytes at a time in every row.

    Returns three tensors (rows): where the body begins, counted like `row_start`; how many elements of the row precede
    the body; and how many elements the body has.
    """
    body_start = (row_start + (VECTOR - 1)) // VECTOR * VECTOR
    head = (body_start - row_start).to(tl.int32)
    return body_start, head, tl.maximum(classes - head, 0) // VECTOR * VECTOR


@triton.jit
def list_fringe(
    head: tl.tensor, body: tl.tensor, classes: tl.tensor, VECTOR: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return the columns of the fringe, (rows, 2 * VECTOR), and which of them exist."""
    # Even lanes take what precedes the body, odd lanes what follows it.
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
