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

# Most rows of a chunk: enough that the products are efficient and the weight's gradient is passed over once or a
# few times, few enough that the logits are a small part of the memory.
_CHUNK_ROWS = {"cpu": 1024, "cuda": 4096}

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


@dataclass(frozen=True)
class _Layer:
    """hidden (N, width), weight (classes, width) and bias (classes) or None, in the dtype of the products."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None


class _Gradients:
    """Gradients of a layer's parts, summed over chunks; of those that are not wanted, None.

    Weight and bias keep the dtype of the products as long as there is one chunk, and are summed in fp32.
    """

    def __init__(self, layer: _Layer, wanted: tuple[bool, ...]) -> None:
        self._layer = layer
        self._wanted = wanted
        self.hidden = torch.empty_like(layer.hidden) if wanted[0] else None
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    @property
    def any_wanted(self) -> bool:
        return any(self._wanted)

    def add(self, rows: slice, grad: Tensor, scale: Tensor) -> None:
        """Add a chunk's part: grad (rows, classes) of each row's loss, scale (rows) of the row in the whole."""
        if self.hidden is not None:
            torch.mul(grad @ self._layer.weight, scale[:, None], out=self.hidden[rows])
        if self._wanted[1]:
            scaled = (self._layer.hidden[rows] * scale[:, None]).to(grad.dtype)
            self.weight = _add_product(self.weight, grad.t(), scaled)
        if self._layer.bias is not None and self._wanted[2]:
            self.bias = _add_product(self.bias, grad.t(), scale.to(grad.dtype))


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """total + left @ right, in fp32 or wider from the second product on."""
    if total is None:
        return left @ right
    wide = torch.promote_types(left.dtype, torch.float32)
    if left.dtype == wide and right.ndim == 2:
        return total.addmm_(left, right)
    return total.to(wide).add_(left @ right)


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


def _run(layer: _Layer, target: Tensor, scale: Tensor, grads: _Gradients, terms: _Terms) -> Tensor:
    """Losses (N) of all rows; adds each chunk's part to `grads`, its rows weighted by `scale` (N)."""
    valid = target != terms.ignore_index
    safe = torch.where(valid, target, 0)
    losses = torch.empty(target.shape, dtype=scale.dtype, device=target.device)
    count = max(1, -(-len(target) // terms.chunk_rows))
    step = max(1, -(-len(target) // count))
    buffer = layer.hidden.new_empty(min(step, len(target)), len(layer.weight))
    for start in range(0, max(1, len(target)), step):
        rows = slice(start, start + step)
        logits = torch.mm(layer.hidden[rows], layer.weight.t(), out=buffer[: len(target[rows])])
        if layer.bias is not None:
            logits.add_(layer.bias)
        losses[rows] = _consume(logits, safe[rows], valid[rows], terms, grads.any_wanted)
        if grads.any_wanted:
            grads.add(rows, logits, scale[rows])
    return losses


def _cast(part: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if part is None else part.to(dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, terms: _Terms, dtype: torch.dtype
    ) -> Tensor:
        ctx.terms, ctx.dtypes = terms, [None if part is None else part.dtype for part in (hidden, weight, bias)]
        layer = _Layer(hidden.to(dtype), weight.to(dtype), _cast(bias, dtype))
        valid = target != terms.ignore_index
        scale = valid.to(torch.promote_types(dtype, torch.float32))
        if terms.reduction == "mean":
            scale = scale / valid.sum().clamp(min=1)
        later = terms.reduction == "none"
        grads = _Gradients(layer, (False, False, False) if later else ctx.needs_input_grad[:3])
        with torch.autocast(hidden.device.type, enabled=False):
            losses = _run(layer, target, scale, grads, terms)
        if later:
            ctx.save_for_backward(layer.hidden, layer.weight, layer.bias, target)
            return losses
        ctx.save_for_backward(grads.hidden, grads.weight, grads.bias)
        return losses.sum() / valid.sum() if terms.reduction == "mean" else losses.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.saved_tensors
        if ctx.terms.reduction == "none":
            *layer, target = parts
            grads = _Gradients(_Layer(*layer), ctx.needs_input_grad[:3])
            scale = torch.where(target != ctx.terms.ignore_index, grad, 0.0)
            _run(_Layer(*layer), target, scale, grads, ctx.terms)
            parts = (grads.hidden, grads.weight, grads.bias)
            grad = grad.new_ones(())
        scaled = (_scaled(part, grad, dtype) for part, dtype in zip(parts, ctx.dtypes, strict=True))
        return (*scaled, None, None, None)


def _scaled(part: Tensor | None, factor: Tensor, dtype: torch.dtype) -> Tensor | None:
    """A new tensor part * factor in `dtype`, multiplied there."""
    if part is None:
        return None
    return part * factor if part.dtype == dtype else part.to(dtype).mul_(factor)


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
