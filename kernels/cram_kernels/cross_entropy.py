"""Cross-entropy of logits against class indices, with label smoothing and z-loss.

    lse_i  = log sum_j exp(x_ij)
    loss_i = (1 - e) * (lse_i - x_i,target) + e * (lse_i - mean_j x_ij) + z * lse_i^2
    d loss_i / d x_ij = p_ij * (1 + 2 z lse_i) - (1 - e) [j = target_i] - e / classes,    p_ij = exp(x_ij - lse_i)

for smoothing e and z-loss coefficient z, in fp32 or wider. The forward pass reads a row once, a block at a time, and
keeps its log-sum-exp alone: as the largest logit and how far it lies above that, so that an offset common to a row
costs no digits. The backward pass reads the row again and writes a new one. Ignored rows are not read.

Source: label smoothing arXiv:1512.00567 section 7, z-loss arXiv:2204.02311 section 5, one pass arXiv:1805.02867 alg. 3.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cram_kernels._dispatch import define, differentiate, differentiate_never, use_triton
from cram_kernels._launch import Settings, as_rows, empty, launch, programs_for, row_stride, tl, triton, whole_rows

MOST_BLOCK = 4096  # of a row at a time: 32 elements a thread of four warps

# On a CPU the passes over the logits are made in blocks of rows that stay in a core's own cache.
_BLOCK_BYTES_PER_THREAD = 1 << 20


class Terms(NamedTuple):
    """What beside logits and target makes a row's loss."""

    ignore_index: int
    label_smoothing: float
    z_loss: float


# --- reference


def split_target(target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Which rows count, bool (rows), and a target that is a class in the others too."""
    valid = target != ignore_index
    if target.device.type == "cpu":
        outside = target[valid & ((target < 0) | (target >= classes))]
        if len(outside):
            raise IndexError(f"target {outside[0]} is out of range: there are {classes} classes")
    return valid, torch.where(valid, target, 0)


def _blocks(logits: Tensor) -> Iterator[slice]:
    step = len(logits)
    if logits.device.type == "cpu":
        row_bytes = logits.shape[1] * torch.promote_types(logits.dtype, torch.float32).itemsize
        step = torch.get_num_threads() * _BLOCK_BYTES_PER_THREAD // row_bytes
    return (slice(start, start + max(1, step)) for start in range(0, len(logits), max(1, step)))


def _losses(logits: Tensor, target: Tensor, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (rows), the two parts of the log-sum-exp (2, rows) and softmax (rows, classes) of wide logits."""
    shares = torch.softmax(logits, -1)
    top = logits.amax(-1)
    # The largest share is at least 1 / classes, so its logarithm is exact where that of a small one is not.
    above = -shares.amax(-1).log()
    losses = (1 - terms.label_smoothing) * (top - logits.gather(1, target[:, None]).squeeze(1)) + above
    if terms.label_smoothing:
        losses = losses + terms.label_smoothing * (top[:, None] - logits).mean(-1)
    if terms.z_loss:
        losses = losses + terms.z_loss * (top + above).square()
    return losses, torch.stack((top, above)), shares


def _to_gradient(shares: Tensor, lse: Tensor, target: Tensor, terms: Terms) -> Tensor:
    """Turn softmax shares (rows, classes) into the gradient of each row's loss, in place."""
    if terms.z_loss:
        shares.mul_((1 + 2 * terms.z_loss * lse.sum(0))[:, None])
    if terms.label_smoothing:
        shares.sub_(terms.label_smoothing / shares.shape[1])
    one = torch.full_like(target, terms.label_smoothing - 1, dtype=shares.dtype)
    return shares.scatter_add_(1, target[:, None], one[:, None])


def cross_entropy_reference(logits: Tensor, target: Tensor, terms: Terms, in_place: bool = False) -> tuple[Tensor, ...]:
    """Losses (rows) and the parts of the log-sum-exp (2, rows) of logits (rows, classes), in fp32 or wider.

    `in_place` turns the logits into the gradient of each row's loss; those of ignored rows are then anything finite.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    valid, target = split_target(target, logits.shape[1], terms.ignore_index)
    losses, lse = empty(logits, (len(logits),), wide), empty(logits, (2, len(logits)), wide)
    for rows in _blocks(logits):
        losses[rows], lse[:, rows], shares = _losses(logits[rows].to(wide), target[rows], terms)
        if in_place:
            logits[rows] = _to_gradient(shares, lse[:, rows], target[rows], terms)
    return losses.masked_fill_(~valid, 0.0), lse


def cross_entropy_backward_reference(grad: Tensor, logits: Tensor, target: Tensor, lse: Tensor, terms: Terms) -> Tensor:
    """The gradient of logits (rows, classes), given those of the losses (rows)."""
    valid, target = split_target(target, logits.shape[1], terms.ignore_index)
    grad_logits = empty(logits, logits.shape)
    for rows in _blocks(logits):
        shares = torch.softmax(logits[rows].to(lse.dtype), -1)
        block = _to_gradient(shares, lse[:, rows], target[rows], terms).mul_(grad[rows, None])
        grad_logits[rows] = block.masked_fill_(~valid[rows, None], 0.0)
    return grad_logits


# --- kernels


@triton.jit
def read_target(logits_ptr, target_ptr, row, stride, rows, classes, ignore_index):
    """Of rows: target, whether they count, whether it is a class, its logit, and something finite near that."""
    target = tl.load(target_ptr + row, mask=row < rows, other=ignore_index)
    valid = (row < rows) & (target != ignore_index)
    known = valid & (target >= 0) & (target < classes)
    picked = tl.load(logits_ptr + row * stride + target, mask=known, other=0.0).to(tl.float32)
    return target, valid, known, picked, tl.where(tl.abs(picked) < float("inf"), picked, 0.0)


@triton.jit
def add_block(x, inside, near, top, total, below, SMOOTHED: tl.constexpr):
    """Largest logit, sum of exp(x - largest) and sum of near - x of rows, with a block of them added.

    x must be -inf where it is not inside.
    """
    larger = tl.maximum(top, tl.max(x, axis=1))
    # A beginning of nothing but -inf must not make NaN of what follows; a row of nothing else ends as NaN.
    offset = tl.where(larger == float("-inf"), 0.0, larger)
    # The maximum passes over NaN, but the sum does not.
    total = total * tl.exp(top - offset) + tl.sum(tl.exp(x - offset[:, None]), axis=1)
    if SMOOTHED:
        below += tl.sum(tl.where(inside, near[:, None] - x, 0.0), axis=1)
    return larger, total, below


@triton.jit
def loss_of_rows(known, picked, near, top, total, below, classes, label_smoothing, z_loss):
    """Losses, and how far the log-sum-exp lies above the largest logit; NaN where the target is not a class."""
    above = tl.where(known, tl.log(total), float("nan"))
    lse = top + above
    smooth = top - near + below / classes
    return (1 - label_smoothing) * (top - picked) + above + label_smoothing * smooth + z_loss * lse * lse, above


@triton.jit
def gradient_of_block(x, column, target, top, above, classes, label_smoothing, z_loss):
    """The gradient of each row's loss."""
    shares = tl.exp(x - top[:, None] - above[:, None]) * (1 + 2 * z_loss * (top + above))[:, None]
    return shares - label_smoothing / classes - tl.where(column == target[:, None], 1 - label_smoothing, 0.0)


@triton.jit
def _cross_entropy_forward_kernel(
    logits_ptr,  # (rows, classes), rows a stride apart
    target_ptr, losses_ptr,  # (rows) int64, (rows) fp32
    lse_ptr,  # (2, rows) fp32
    stride, rows, classes, ignore_index, label_smoothing, z_loss,
    SMOOTHED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    _, valid, known, picked, near = read_target(logits_ptr, target_ptr, row, stride, rows, classes, ignore_index)
    column = tl.arange(0, BLOCK)[None, :]
    logits_at = logits_ptr + row[:, None] * stride + column
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    below = tl.zeros((ROWS,), tl.float32)
    for start in range(0, classes, BLOCK):
        inside = valid[:, None] & (start + column < classes)
        x = tl.load(logits_at + start, mask=inside, other=float("-inf")).to(tl.float32)
        top, total, below = add_block(x, inside, near, top, total, below, SMOOTHED)
    loss, above = loss_of_rows(known, picked, near, top, total, below, classes, label_smoothing, z_loss)
    tl.store(losses_ptr + row, tl.where(valid, loss, 0.0), mask=row < rows)
    tl.store(lse_ptr + row, top, mask=row < rows)
    tl.store(lse_ptr + rows + row, above, mask=row < rows)


@triton.jit
def _cross_entropy_backward_kernel(
    grad_ptr, logits_ptr,  # (rows) and (rows, classes), rows a stride apart
    target_ptr, lse_ptr,  # (rows) int64, (2, rows) fp32
    grad_logits_ptr,  # (rows, classes)
    grad_stride, stride, rows, classes, ignore_index, label_smoothing, z_loss,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    target = tl.load(target_ptr + row, mask=row < rows, other=ignore_index)
    valid = (row < rows) & (target != ignore_index)
    # Of an ignored row all is read as 0, and so is its gradient.
    grad = tl.load(grad_ptr + row * grad_stride, mask=valid, other=0.0).to(tl.float32)
    top = tl.load(lse_ptr + row, mask=valid, other=0.0)
    above = tl.load(lse_ptr + rows + row, mask=valid, other=0.0)
    column = tl.arange(0, BLOCK)[None, :]
    for start in range(0, classes, BLOCK):
        inside = (row < rows)[:, None] & (start + column < classes)
        place = row[:, None] * stride + start + column
        x = tl.load(logits_ptr + place, mask=inside & valid[:, None], other=0.0).to(tl.float32)
        grad_x = gradient_of_block(x, start + column, target, top, above, classes, label_smoothing, z_loss)
        grad_x = (grad_x * grad[:, None]).to(grad_logits_ptr.dtype.element_ty)
        tl.store(grad_logits_ptr + row[:, None] * classes + start + column, grad_x, mask=inside)


# --- launchers


def row_settings(classes: int) -> Settings:
    """Four rows of 1024, or a part of one row."""
    return whole_rows(min(classes, MOST_BLOCK), elements=4096)


def _cross_entropy_forward(logits: Tensor, target: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    rows = as_rows(logits)
    losses, lse = _forward_fake(logits, target, *terms)
    settings = row_settings(logits.shape[1])
    launch(
        _cross_entropy_forward_kernel, programs_for(len(rows), settings),
        rows, target.contiguous(), losses, lse, row_stride(rows), *rows.shape, *terms,
        settings=settings, SMOOTHED=terms.label_smoothing != 0, ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return losses, lse


def _cross_entropy_backward(grad: Tensor, logits: Tensor, target: Tensor, lse: Tensor, terms: Terms) -> Tensor:
    rows = as_rows(logits)
    grad_logits = empty(logits, logits.shape)
    settings = row_settings(logits.shape[1])
    launch(
        _cross_entropy_backward_kernel, programs_for(len(rows), settings),
        grad, rows, target.contiguous(), lse, grad_logits, grad.stride(0), row_stride(rows), *rows.shape, *terms,
        settings=settings, ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return grad_logits


# --- op, fake, autograd


def _forward(logits: Tensor, target: Tensor, *terms: Any) -> tuple[Tensor, ...]:
    run = _cross_entropy_forward if use_triton(logits) else cross_entropy_reference
    return run(logits, target, Terms(*terms))


def _forward_fake(logits: Tensor, target: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return empty(logits, target.shape, wide), empty(logits, (2, *target.shape), wide)


def _backward(grad: Tensor, logits: Tensor, target: Tensor, lse: Tensor, *terms: Any) -> Tensor:
    run = _cross_entropy_backward if use_triton(logits) else cross_entropy_backward_reference
    return run(grad, logits, target, lse, Terms(*terms))


_TERMS = "int ignore_index, float label_smoothing, float z_loss"
_op = define(f"cross_entropy(Tensor logits, Tensor target, {_TERMS}) -> (Tensor, Tensor)", _forward, _forward_fake)
_backward_op = define(
    f"cross_entropy_backward(Tensor grad, Tensor logits, Tensor target, Tensor lse, {_TERMS}) -> Tensor",
    _backward, lambda grad, logits, *_: empty(logits, logits.shape),
)  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, *ctx.terms = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, target, output[1])


def _differentiate(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    grad_logits = None if grad is None else _backward_op(grad, *ctx.saved_tensors, *ctx.terms)
    return grad_logits, None, None, None, None


differentiate(_op, _differentiate, _save)
differentiate_never(_backward_op)


# --- public


def check_words(target: Tensor, reduction: str) -> None:
    """Refuse another reduction, and a target that holds no class indices."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean, not {reduction!r}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold class indices as int64, not {target.dtype}")


def cross_entropy(
    logits: Tensor, target: Tensor, *, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Cross-entropy in nats.

    Args:
        logits: (N, classes), any floating dtype; also (classes) and (N, classes, ...), as torch's.
        target: int64 (N), or the shape of the logits without the classes: class indices or `ignore_index`. One out of
            range raises IndexError on a CPU; on a GPU the loss of its row is NaN, and so is its gradient.
        ignore_index: target of the rows that count nothing: their loss and gradient are 0 whatever they hold.
        label_smoothing: share of the target spread evenly over the classes.
        z_loss: coefficient of the squared log-partition, added per valid row.
        reduction: "none", "sum", or "mean" over the valid rows (NaN if there is none, as torch's).

    Returns:
        fp32 (fp64 for fp64 logits), also under autocast: the target's shape for "none", else a scalar.
        Differentiable once.

    Raises:
        TypeError: for a target that is not int64.
        ValueError: for another reduction, or shapes that do not fit.
    """
    check_words(target, reduction)
    by_row = logits.movedim(min(1, logits.ndim - 1), -1) if logits.ndim else logits[None]
    if by_row.shape[:-1] != target.shape or not by_row.shape[-1]:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit target {tuple(target.shape)}")
    rows = by_row.reshape(target.numel(), by_row.shape[-1])
    losses, _ = _op(rows, target.reshape(-1), ignore_index, label_smoothing, z_loss)
    if reduction == "none":
        return losses.view(target.shape)
    total = losses.sum()
    return total if reduction == "sum" else total / (target != ignore_index).sum()
