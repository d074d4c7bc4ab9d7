"""Cross-entropy of a linear layer's output, chunked over rows: the full logits never exist.

    x = hidden @ weight^T + bias,   loss as in `cross_entropy`
    d loss_i / d x_ij = p_ij * (1 + 2 z lse_i) - (1 - e) [j = target_i] - e / classes

for smoothing e, z-loss coefficient z and p = softmax(x). For a reduced loss the gradients of hidden, weight
and bias are formed chunk by chunk during the forward pass, the softmax being turned into the gradient in its
own buffer; the backward pass only scales them. For reduction "none" the row gradients are unknown until the
backward pass, which computes the logits again.

Source: arXiv:2410.10989 section 3.2, changed: the weight's gradient is accumulated in fp32, p - 1 is formed in
fp32 (a confident target loses it in bf16), and the rows' scale is applied to the narrow side of each product.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of a chunk: enough that the products are efficient and the weight's gradient is not passed over too often,
# few enough that the logits are a small part of the memory.
_CHUNK_ROWS = {"cpu": 512, "cuda": 4096}

# On a CPU the passes over a chunk's logits are made in blocks that stay in a core's own cache.
_BLOCK_BYTES_PER_THREAD = 1 << 20


@dataclass(frozen=True)
class _Terms:
    """The parts of the loss that are plain numbers."""

    ignore_index: int
    label_smoothing: float
    z_loss: float
    reduction: str
    chunk_rows: int


@dataclass
class _Gradients:
    """Buffers of the gradients that are wanted; `None` for the others."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @staticmethod
    def empty(hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: tuple[bool, ...]) -> "_Gradients":
        wide = torch.promote_types(weight.dtype, torch.float32)
        return _Gradients(
            torch.empty_like(hidden) if needs[0] else None,
            torch.zeros_like(weight, dtype=wide) if needs[1] else None,
            torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None,
        )

    def wanted(self) -> bool:
        return any(part is not None for part in (self.hidden, self.weight, self.bias))


def _losses(logits: Tensor, target: Tensor, valid: Tensor, terms: _Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (rows), log-partitions (rows) and softmax (rows, classes) of one chunk of wide logits."""
    shares = torch.softmax(logits, -1)
    top = logits.amax(-1)
    # The largest share is at least 1 / classes, so its logarithm is exact where that of a small one is not; and
    # the top is subtracted before it is added, so that an offset common to a row costs no digits.
    above_top = -shares.amax(-1).log()
    picked = logits.gather(1, target[:, None]).squeeze(1)
    losses = (1 - terms.label_smoothing) * (top - picked) + above_top
    if terms.label_smoothing:
        losses = losses + terms.label_smoothing * (top - logits.mean(-1))
    lse = top + above_top
    if terms.z_loss:
        losses = losses + terms.z_loss * lse.square()
    return torch.where(valid, losses, 0.0), lse, shares


def _to_logit_gradient(shares: Tensor, lse: Tensor, target: Tensor, terms: _Terms) -> Tensor:
    """Turn softmax shares (rows, classes) into the gradient of each row's loss, in place."""
    if terms.z_loss:
        shares.mul_((1 + 2 * terms.z_loss * lse)[:, None])
    if terms.label_smoothing:
        shares.sub_(terms.label_smoothing / shares.shape[1])
    one = torch.full_like(target, terms.label_smoothing - 1, dtype=shares.dtype)
    return shares.scatter_add_(1, target[:, None], one[:, None])


def _consume(logits: Tensor, target: Tensor, valid: Tensor, terms: _Terms, gradient: bool) -> Tensor:
    """Losses (rows) of a chunk's logits (rows, classes), which become their own gradient if that is wanted."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    losses = torch.empty(target.shape, dtype=wide, device=logits.device)
    block = len(target)
    if logits.device.type == "cpu":
        block = max(1, torch.get_num_threads() * _BLOCK_BYTES_PER_THREAD // (wide.itemsize * logits.shape[1]))
    for start in range(0, len(target), block):
        rows = slice(start, start + block)
        losses[rows], lse, shares = _losses(logits[rows].to(wide), target[rows], valid[rows], terms)
        if gradient:
            logits[rows] = _to_logit_gradient(shares, lse, target[rows], terms)
    return losses


def _add_gradients(grads: _Gradients, rows: slice, grad: Tensor, scale: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """Add one chunk's part: grad (rows, classes) of each row's loss, scale (rows) of the row in the whole."""
    if grads.hidden is not None:
        torch.mul(grad @ weight, scale[:, None], out=grads.hidden[rows])
    if grads.weight is not None:
        scaled = (hidden * scale[:, None]).to(grad.dtype)
        if grads.weight.dtype == grad.dtype:
            grads.weight.addmm_(grad.t(), scaled)
        else:
            grads.weight.add_(grad.t() @ scaled)
    if grads.bias is not None:
        grads.bias.add_(scale.to(grad.dtype) @ grad)


def _chunks(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, scale: Tensor, grads: _Gradients, terms: _Terms
) -> Tensor:
    """Losses (N) of all rows; adds what each chunk gives to `grads`, its rows weighted by `scale` (N)."""
    valid = target != terms.ignore_index
    safe = torch.where(valid, target, 0)
    losses = torch.empty(target.shape, dtype=scale.dtype, device=hidden.device)
    for start in range(0, len(target), terms.chunk_rows):
        rows = slice(start, start + terms.chunk_rows)
        logits = F.linear(hidden[rows], weight, bias)
        losses[rows] = _consume(logits, safe[rows], valid[rows], terms, grads.wanted())
        if grads.wanted():
            _add_gradients(grads, rows, logits, scale[rows], hidden[rows], weight)
    return losses


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: _Terms, dtype: torch.dtype
    ) -> Tensor:
        cast = tuple(None if part is None else part.to(dtype) for part in (hidden, weight, bias))
        valid = target != terms.ignore_index
        wide = torch.promote_types(dtype, torch.float32)
        scale = valid.to(wide)
        if terms.reduction == "mean":
            scale = scale / valid.sum().clamp(min=1)
        later = terms.reduction == "none"
        needs = (False, False, False) if later else ctx.needs_input_grad[:3]
        grads = _Gradients.empty(*cast, needs)
        with torch.autocast(hidden.device.type, enabled=False):
            losses = _chunks(*cast, target, scale, grads, terms)
        ctx.terms, ctx.dtypes = terms, (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        if later:
            ctx.save_for_backward(*cast, target)
            return losses
        ctx.save_for_backward(grads.hidden, grads.weight, grads.bias)
        return losses.sum() / valid.sum() if terms.reduction == "mean" else losses.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.terms.reduction == "none":
            hidden, weight, bias, target = ctx.saved_tensors
            made = _Gradients.empty(hidden, weight, bias, ctx.needs_input_grad[:3])
            scale = torch.where(target != ctx.terms.ignore_index, grad, 0.0)
            _chunks(hidden, weight, bias, target, scale, made, ctx.terms)
            parts = (made.hidden, made.weight, made.bias)
        else:
            parts = tuple(None if part is None else part * grad for part in ctx.saved_tensors)
        cast = (None if part is None else part.to(kind) for part, kind in zip(parts, ctx.dtypes, strict=True))
        return (*cast, None, None, None)


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    chunk_rows: int | None = None,
) -> Tensor:
    """Cross-entropy in nats of hidden @ weight^T + bias, without ever holding all logits.

    Args:
        hidden: (N, width), any floating dtype; under autocast the products run in the autocast dtype.
        weight: (classes, width).
        target: int64 (N), class indices or `ignore_index`.
        bias: (classes) or None.
        ignore_index: target of the rows that count nothing.
        label_smoothing: share of the target spread evenly over the classes.
        z_loss: coefficient of the squared log-partition, added per valid row.
        reduction: "none", "sum", or "mean" over the valid rows (NaN if there is none, as torch's).
        chunk_rows: rows of logits held at a time (None: chosen for the device).

    Returns:
        fp32 (fp64 for fp64 inputs): (N) for "none", else a scalar. Differentiable once.

    Raises:
        ValueError: for another reduction or a chunk of no rows.
    """
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean, not {reduction!r}")
    if chunk_rows is None:
        chunk_rows = _CHUNK_ROWS.get(hidden.device.type, _CHUNK_ROWS["cuda"])
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be positive, not {chunk_rows}")
    terms = _Terms(ignore_index, label_smoothing, z_loss, reduction, chunk_rows)
    return _LinearCrossEntropy.apply(hidden, weight, bias, target, terms, _compute_dtype(hidden))
