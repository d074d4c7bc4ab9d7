"""Cross-entropy of logits against class indices, with label smoothing and z-loss.

    lse_i  = log sum_j exp(x_ij)
    loss_i = (1 - e) * (lse_i - x_i,target) + e * (lse_i - mean_j x_ij) + z * lse_i^2
    d loss_i / d x_ij = p_ij * (1 + 2 z lse_i) - (1 - e) [j = target_i] - e / classes,    p_ij = exp(x_ij - lse_i)

for smoothing e and z-loss coefficient z, in fp32 or wider. The forward pass reads a row once, a block at a time, and
saves only its log-sum-exp, in two parts: the largest logit, and how far the log-sum-exp lies above it. The backward
pass reads the row again and writes the gradient to a new tensor. Logits of ignored rows are not read.

The kernels and their launchers are in `_cross_entropy_kernels.py`.

Source: label smoothing arXiv:1512.00567 section 7, z-loss arXiv:2204.02311 section 5, one pass arXiv:1805.02867 alg. 3.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cram_kernels._cross_entropy_kernels import (
    LossTerms,
    allocate_cross_entropy,
    launch_cross_entropy_backward,
    launch_cross_entropy_forward,
)
from cram_kernels._dispatch import refuse_double_backward, register_autograd, register_op, use_triton

# On a CPU the passes over the logits are made in blocks of rows that stay in the cache of each core.
_BLOCK_BYTES_PER_THREAD = 1 << 20


# --- reference


def split_target(target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Split a target (rows) into the rows that are valid, as bool (rows), and a class index for every row.

    Raises:
        IndexError: on a CPU, for a target that is not a class. On a GPU this would have to wait for the device.
    """
    is_valid = target != ignore_index
    if target.device.type == "cpu":
        outside = target[is_valid & ((target < 0) | (target >= classes))]
        if len(outside):
            raise IndexError(f"target {outside[0]} is out of range: there are {classes} classes")
    return is_valid, torch.where(is_valid, target, 0)


def _split_rows(logits: Tensor) -> Iterator[slice]:
    """Yield blocks of rows: on a CPU as many rows as stay in the cache, elsewhere all of them at once."""
    step = len(logits)
    if logits.device.type == "cpu":
        row_bytes = logits.shape[1] * torch.promote_types(logits.dtype, torch.float32).itemsize
        step = torch.get_num_threads() * _BLOCK_BYTES_PER_THREAD // row_bytes
    return (slice(start, start + max(1, step)) for start in range(0, len(logits), max(1, step)))


def _compute_losses(logits: Tensor, target: Tensor, terms: LossTerms) -> tuple[Tensor, Tensor, Tensor]:
    """Compute losses (rows), lse parts (2, rows) and softmax shares (rows, classes) of logits in fp32 or wider."""
    shares = torch.softmax(logits, -1)
    row_max = logits.amax(-1)
    # The largest share is at least 1 / classes, so its logarithm is exact. That of a small share would not be.
    log_sum = -shares.amax(-1).log()
    target_gap = row_max - logits.gather(1, target[:, None]).squeeze(1)
    losses = (1 - terms.label_smoothing) * target_gap + log_sum
    if terms.label_smoothing:
        losses = losses + terms.label_smoothing * (row_max[:, None] - logits).mean(-1)
    if terms.z_loss:
        losses = losses + terms.z_loss * (row_max + log_sum).square()
    return losses, torch.stack((row_max, log_sum)), shares


def _turn_into_gradient(shares: Tensor, lse_parts: Tensor, target: Tensor, terms: LossTerms) -> Tensor:
    """Turn softmax shares (rows, classes) into the gradient of each row's loss, in place."""
    if terms.z_loss:
        shares.mul_((1 + 2 * terms.z_loss * lse_parts.sum(0))[:, None])
    if terms.label_smoothing:
        shares.sub_(terms.label_smoothing / shares.shape[1])
    target_term = torch.full_like(target, terms.label_smoothing - 1, dtype=shares.dtype)
    return shares.scatter_add_(1, target[:, None], target_term[:, None])


def cross_entropy_reference(
    logits: Tensor, target: Tensor, terms: LossTerms, in_place: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute the losses (rows) and the lse parts (2, rows) of logits (rows, classes), in fp32 or wider.

    With `in_place` the logits become the gradient of each row's loss. In ignored rows it is then finite but arbitrary.
    """
    is_valid, target = split_target(target, logits.shape[1], terms.ignore_index)
    losses, lse_parts = allocate_cross_entropy(logits, target)
    for rows in _split_rows(logits):
        losses[rows], lse_parts[:, rows], shares = _compute_losses(logits[rows].to(losses.dtype), target[rows], terms)
        if in_place:
            logits[rows] = _turn_into_gradient(shares, lse_parts[:, rows], target[rows], terms)
    return losses.masked_fill_(~is_valid, 0.0), lse_parts


def cross_entropy_backward_reference(
    grad_losses: Tensor, logits: Tensor, target: Tensor, lse_parts: Tensor, terms: LossTerms
) -> Tensor:
    """Compute the gradient of logits (rows, classes), given that of the losses (rows)."""
    is_valid, target = split_target(target, logits.shape[1], terms.ignore_index)
    grad_logits = logits.new_empty(logits.shape)
    for rows in _split_rows(logits):
        shares = torch.softmax(logits[rows].to(lse_parts.dtype), -1)
        grad = _turn_into_gradient(shares, lse_parts[:, rows], target[rows], terms).mul_(grad_losses[rows, None])
        grad_logits[rows] = grad.masked_fill_(~is_valid[rows, None], 0.0)
    return grad_logits


# --- op, fake, autograd


def _forward(
    logits: Tensor, target: Tensor, ignore_index: int, label_smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    run = launch_cross_entropy_forward if use_triton(logits) else cross_entropy_reference
    return run(logits, target, LossTerms(ignore_index, label_smoothing, z_loss))


def _forward_fake(logits: Tensor, target: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return allocate_cross_entropy(logits, target)


def _backward(
    grad_losses: Tensor,
    logits: Tensor,
    target: Tensor,
    lse_parts: Tensor,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
) -> Tensor:
    run = launch_cross_entropy_backward if use_triton(logits) else cross_entropy_backward_reference
    return run(grad_losses, logits, target, lse_parts, LossTerms(ignore_index, label_smoothing, z_loss))


def _backward_fake(_grad_losses: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape)


_TERMS = "int ignore_index, float label_smoothing, float z_loss"
_op = register_op(f"cross_entropy(Tensor logits, Tensor target, {_TERMS}) -> (Tensor, Tensor)", _forward, _forward_fake)
_backward_op = register_op(
    f"cross_entropy_backward(Tensor grad_losses, Tensor logits, Tensor target, Tensor lse_parts, {_TERMS}) -> Tensor",
    _backward,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, *ctx.terms = inputs
    _, lse_parts = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(lse_parts)
    ctx.save_for_backward(logits, target, lse_parts)


def _autograd_backward(ctx: Any, grad_losses: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    grad_logits = None if grad_losses is None else _backward_op(grad_losses, *ctx.saved_tensors, *ctx.terms)
    return grad_logits, None, None, None, None


register_autograd(_op, _autograd_backward, _setup_context)
refuse_double_backward(_backward_op)


# --- public


def check_target_and_reduction(target: Tensor, reduction: str) -> None:
    """Refuse a target that does not hold class indices as int64, and an unknown reduction."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean, not {reduction!r}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold class indices as int64, not {target.dtype}")


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Compute the cross-entropy in nats. The result can be differentiated once.

    Args:
        logits: (N, classes), any floating dtype. Also (classes) and (N, classes, ...), as torch's.
        target: int64 (N), or the shape of the logits without the classes: class indices or `ignore_index`. An index out
            of range raises IndexError on a CPU. On a GPU it makes the loss of its row and the gradient of the row NaN.
        ignore_index: target of the rows that do not count: their loss and gradient are 0, whatever their logits are.
        label_smoothing: share of the target that is spread evenly over the classes.
        z_loss: coefficient of the squared log-sum-exp that is added to the loss of each valid row.
        reduction: "none", "sum", or "mean" over the valid rows, which is NaN without any, as torch's.

    Returns:
        fp32, or fp64 for fp64 logits, also under autocast: the shape of the target for "none", else a scalar.

    Raises:
        IndexError: on a CPU, for a target that is not a class.
        TypeError: for a target that is not int64.
        ValueError: for another reduction, and for shapes that do not fit.
    """
    check_target_and_reduction(target, reduction)
    by_row = logits.movedim(min(1, logits.ndim - 1), -1) if logits.ndim else logits[None]
    if by_row.shape[:-1] != target.shape or not by_row.shape[-1]:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit target {tuple(target.shape)}")
    rows = by_row.reshape(target.numel(), by_row.shape[-1])
    losses: Tensor = _op(rows, target.reshape(-1), ignore_index, label_smoothing, z_loss)[0]
    if reduction == "none":
        return losses.view(target.shape)
    total = losses.sum()
    return total if reduction == "sum" else total / (target != ignore_index).sum()
