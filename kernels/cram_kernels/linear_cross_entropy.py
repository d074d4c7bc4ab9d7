"""Cross-entropy of a linear layer's output, chunked over rows: the full logits never exist.

    x = hidden @ weight^T + bias,    loss_i and d loss_i / d x_ij as in `cross_entropy`

For a reduced loss the gradients of hidden, weight and bias are formed chunk by chunk during the forward pass, the
logits being turned into their gradient in their own buffer; the backward pass only scales them. For reduction "none"
the gradients of the rows are unknown until the backward pass, which computes the logits again. The products run in
the dtype of hidden, and the gradient of the weight is summed in fp32.

Source: arXiv:2410.10989 section 3.2, changed: fp32 sums, p - 1 formed in fp32 (a confident target loses it in bf16),
and a row's scale applied to the narrow side of each product.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cram_kernels._dispatch import define, differentiate, differentiate_never, use_triton
from cram_kernels._launch import Settings, empty, launch, programs_for, row_stride, tl, triton, whole_rows
from cram_kernels.cross_entropy import (
    Terms,
    _cross_entropy_forward,
    add_block,
    check_words,
    cross_entropy_reference,
    gradient_of_block,
    loss_of_rows,
    read_target,
)

# Most rows of a chunk: enough that the products are efficient and the weight's gradient is passed over once or a
# few times, few enough that the logits are a small part of the memory.
_CHUNK_ROWS = {"cpu": 1024, "cuda": 4096}

MOST_HELD = 64 << 10  # bytes of a row held whole, over the registers of 512 threads
_ALIGNMENT = 16  # elements to whose multiple the kernel's rows are padded, so as to be read 16 bytes at a time


# --- kernels


@triton.jit
def _linear_cross_entropy_kernel(
    logits_ptr,  # (rows, classes), rows a stride apart: become the gradient of each row's loss
    target_ptr,  # (rows) int64
    losses_ptr,  # (rows) fp32
    padded,  # classes, and what follows them in a row and may be written
    stride, rows, classes, ignore_index, label_smoothing, z_loss,
    SMOOTHED: tl.constexpr,
    HELD: tl.constexpr,  # whether a block is a whole row
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    target, valid, known, picked, near = read_target(logits_ptr, target_ptr, row, stride, rows, classes, ignore_index)
    tl.debug_barrier()  # another thread will write over the target's logit
    column = tl.arange(0, BLOCK)[None, :]
    logits_at = logits_ptr + row[:, None] * stride + column
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    below = tl.zeros((ROWS,), tl.float32)
    # The padding is read and written too: a mask that ends anywhere would forbid wide loads.
    if HELD:
        there = (row < rows)[:, None] & (column < padded)
        inside = valid[:, None] & (column < classes)
        x = tl.where(inside, tl.load(logits_at, mask=there, other=0.0).to(tl.float32), float("-inf"))
        top, total, below = add_block(x, inside, near, top, total, below, SMOOTHED)
        loss, above = loss_of_rows(known, picked, near, top, total, below, classes, label_smoothing, z_loss)
        grad = gradient_of_block(x, column, target, top, above, classes, label_smoothing, z_loss)
        grad = tl.where(valid[:, None], grad, 0.0).to(logits_ptr.dtype.element_ty)
        tl.store(logits_at, grad, mask=there)
    else:
        for start in range(0, classes, BLOCK):
            there = (row < rows)[:, None] & (start + column < padded)
            inside = valid[:, None] & (start + column < classes)
            x = tl.where(inside, tl.load(logits_at + start, mask=there, other=0.0).to(tl.float32), float("-inf"))
            top, total, below = add_block(x, inside, near, top, total, below, SMOOTHED)
        loss, above = loss_of_rows(known, picked, near, top, total, below, classes, label_smoothing, z_loss)
        for start in range(0, classes, BLOCK):
            there = (row < rows)[:, None] & (start + column < padded)
            x = tl.load(logits_at + start, mask=there, other=0.0).to(tl.float32)
            grad = gradient_of_block(x, start + column, target, top, above, classes, label_smoothing, z_loss)
            grad = tl.where(valid[:, None], grad, 0.0).to(logits_ptr.dtype.element_ty)
            tl.store(logits_at + start, grad, mask=there)
    tl.store(losses_ptr + row, tl.where(valid, loss, 0.0), mask=row < rows)


# --- launchers


def in_place_settings(width: int, itemsize: int) -> Settings:
    """Four rows of 1024. Rows too wide to be held have as many warps, so that few at a time are in the cache."""
    fit = whole_rows(width, elements=4096)
    return Settings(fit.rows, fit.block, min(16, fit.warps)) if width * itemsize <= MOST_HELD else Settings(1, 8192, 16)


def _padded(classes: int) -> int:
    return classes + -classes % _ALIGNMENT


def _linear_cross_entropy(logits: Tensor, target: Tensor, terms: Terms) -> Tensor:
    """Losses (rows) of a chunk's logits (rows, classes), which become their own gradient."""
    losses = empty(logits, target.shape, torch.float32)
    padded = min(row_stride(logits), _padded(logits.shape[1]))
    settings = in_place_settings(padded, logits.element_size())
    launch(
        _linear_cross_entropy_kernel, programs_for(len(logits), settings),
        logits, target, losses, padded, row_stride(logits), *logits.shape, *terms,
        settings=settings, SMOOTHED=terms.label_smoothing != 0, HELD=settings.block >= padded,
        ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return losses


# --- chunks: products around whichever of the two computes the losses


class _Gradients:
    """Gradients of hidden, weight and bias, summed over chunks; None where not wanted, and before the first."""

    def __init__(self, hidden: Tensor, weight: Tensor, wanted: Sequence[bool]) -> None:
        self._layer_weight = weight  # in the dtype of the products
        self._wanted = wanted
        self.hidden = empty(hidden, hidden.shape) if wanted[0] else None
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, rows: slice, hidden: Tensor, grad: Tensor, scale: Tensor) -> None:
        """Add a chunk's part: grad (rows, classes) of each row's loss, scale (rows) of the row in the whole."""
        if self.hidden is not None:
            torch.mul(grad @ self._layer_weight, scale[:, None], out=self.hidden[rows])
        if self._wanted[1]:
            self.weight = _add_product(self.weight, grad.t(), (hidden * scale[:, None]).to(grad.dtype))
        if self._wanted[2]:
            # A scale is given as the sum of two: one alone, rounded to bf16, would be off for all rows alike.
            first = scale.to(grad.dtype)
            pair = torch.stack((first, (scale - first).to(grad.dtype)), 1)
            self.bias = _add_product(self.bias, grad.t(), pair)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """total + left @ right in fp32 or wider; on a CPU the first product, still alone, keeps its dtype."""
    wide = torch.promote_types(left.dtype, torch.float32)
    if left.dtype == wide:
        return left @ right if total is None else total.addmm_(left, right)
    if left.device.type == "cuda":  # the only device whose products of half precision give fp32
        if total is None:
            return torch.mm(left, right, out_dtype=wide)
        return torch.addmm(total, left, right, out_dtype=wide, out=total)
    return left @ right if total is None else total.to(wide).add_(left @ right)


def _run(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, scale: Tensor, terms: Terms, chunk_rows: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:  # fmt: skip
    """Losses (N), and the gradients of the sum of losses times scale (N) that are wanted, empty tensors for others."""
    layer_weight = weight.to(hidden.dtype)
    grads = _Gradients(hidden, layer_weight, wanted)
    triton_runs = use_triton(hidden)
    classes = len(weight)
    target, ignored = target.contiguous(), target == terms.ignore_index
    losses = empty(hidden, target.shape, scale.dtype)
    count = max(1, -(-len(target) // chunk_rows))
    step = max(1, -(-len(target) // count))
    buffer = empty(hidden, (min(step, len(target)), _padded(classes) if triton_runs else classes))
    for start in range(0, max(1, len(target)), step):
        rows = slice(start, start + step)
        chunk = hidden[rows].masked_fill(ignored[rows, None], 0.0)  # what an ignored row holds counts nothing
        logits = torch.mm(chunk, layer_weight.t(), out=buffer[: len(chunk), :classes])
        if bias is not None:
            logits.add_(bias.to(logits.dtype))
        losses[rows] = _consume(logits, target[rows], terms, any(wanted), triton_runs)
        if any(wanted):
            grads.add(rows, chunk, logits, scale[rows])
    parts = (grads.hidden, grads.weight, None if grads.bias is None else grads.bias.sum(1))
    pairs = zip(parts, (hidden, weight, hidden if bias is None else bias), strict=True)
    return losses, *(empty(like) if part is None else part.to(like.dtype) for part, like in pairs)


def _consume(logits: Tensor, target: Tensor, terms: Terms, gradient: bool, triton_runs: bool) -> Tensor:
    """Losses (rows) of a chunk's logits (rows, classes), which become their own gradient if that is wanted."""
    if not triton_runs:
        return cross_entropy_reference(logits, target, terms, in_place=gradient)[0]
    if gradient:
        return _linear_cross_entropy(logits, target, terms)
    return _cross_entropy_forward(logits, target, terms)[0]


# --- op, fake, autograd


def _forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, ignore_index: int, label_smoothing: float,
    z_loss: float, chunk_rows: int, reduction: str, *wanted: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    terms = Terms(ignore_index, label_smoothing, z_loss)
    scale = (target != ignore_index).to(torch.promote_types(hidden.dtype, torch.float32))
    count = scale.sum()
    if reduction == "mean":
        scale = scale / count.clamp(min=1)
    losses, *parts = _run(hidden, weight, bias, target, scale, terms, chunk_rows, wanted)
    if reduction == "none":
        return losses, *parts
    return losses.sum() / count if reduction == "mean" else losses.sum(), *parts


def _forward_fake(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    reduction, *wanted = rest[4:]
    loss = empty(hidden, target.shape if reduction == "none" else (), torch.promote_types(hidden.dtype, torch.float32))
    return loss, *_parts_fake(hidden, weight, bias, wanted)


def _parts_fake(hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: Sequence[bool]) -> Iterator[Tensor]:
    parts = (hidden, weight, hidden if bias is None else bias)
    return (empty(part, part.shape if want else (0,)) for part, want in zip(parts, wanted, strict=True))


def _rows_backward(
    grad: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, ignore_index: int,
    label_smoothing: float, z_loss: float, chunk_rows: int, *wanted: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    terms = Terms(ignore_index, label_smoothing, z_loss)
    scale = grad.masked_fill(target == ignore_index, 0.0)
    return _run(hidden, weight, bias, target, scale, terms, chunk_rows, wanted)[1:]


def _backward(grad: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    # The factor has as many dimensions as a part: on a GPU a scalar would be rounded to the part's dtype first.
    return tuple(torch.mul(part, grad.view([1] * part.ndim), out=empty(part, part.shape)) for part in parts)


_ARGUMENTS = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor target, int ignore_index, float label_smoothing, float z_loss,"
    " int chunk_rows"
)
_WANTED = "bool hidden_wanted, bool weight_wanted, bool bias_wanted"
_PARTS = "Tensor, Tensor, Tensor"
_op = define(
    f"linear_cross_entropy({_ARGUMENTS}, str reduction, {_WANTED}) -> (Tensor, {_PARTS})", _forward, _forward_fake
)
_rows_backward_op = define(
    f"linear_cross_entropy_rows_backward(Tensor grad, {_ARGUMENTS}, {_WANTED}) -> ({_PARTS})", _rows_backward,
    lambda grad, hidden, weight, bias, *rest: tuple(_parts_fake(hidden, weight, bias, rest[-3:])),
)  # fmt: skip
_backward_op = define(
    f"linear_cross_entropy_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor bias) -> ({_PARTS})", _backward,
    lambda grad, *parts: tuple(empty(part, part.shape) for part in parts),
)  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    *ctx.numbers, ctx.reduction = inputs[4:9]
    ctx.save_for_backward(*(inputs[:4] if ctx.reduction == "none" else output[1:]))


def _differentiate(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad[:3]
    parts: Sequence[Tensor | None] = (None, None, None)
    if grad is not None and ctx.reduction == "none":
        parts = _rows_backward_op(grad, *ctx.saved_tensors, *ctx.numbers, *wanted)
    elif grad is not None:
        parts = _backward_op(grad, *ctx.saved_tensors)
    return *(part if want else None for part, want in zip(parts, wanted, strict=True)), *[None] * 9


differentiate(_op, _differentiate, _save)
differentiate_never(_rows_backward_op)
differentiate_never(_backward_op)


# --- public


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, *, bias: Tensor | None = None, ignore_index: int = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = "mean", chunk_rows: int | None = None,
) -> Tensor:  # fmt: skip
    """Cross-entropy in nats of hidden @ weight^T + bias, without ever holding all logits.

    Args:
        hidden: (N, width), any floating dtype; the products run in it, or under autocast in the autocast dtype.
        weight, bias: (classes, width), and (classes) or None.
        target: int64 (N), class indices or `ignore_index`; out of range as in `cross_entropy`.
        ignore_index: target of the rows that count nothing, whatever they hold.
        label_smoothing: share of the target spread evenly over the classes.
        z_loss: coefficient of the squared log-partition, added per valid row.
        reduction: "none", "sum", or "mean" over the valid rows (NaN if there is none, as torch's).
        chunk_rows: most rows of logits held at a time (None: chosen for the device).

    Returns:
        fp32 (fp64 for fp64 inputs): (N) for "none", else a scalar. Differentiable once.

    Raises:
        TypeError: for a target that is not int64.
        ValueError: for another reduction, a chunk of no rows, or shapes that do not fit.
    """
    check_words(target, reduction)
    fitting = hidden.ndim == weight.ndim == 2 and hidden.shape[1] == weight.shape[1] and len(weight)
    if not fitting or target.shape != hidden.shape[:1]:
        shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"{shapes} do not fit: they must be (N, width), (classes, width) and (N)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)} does not fit weight {tuple(weight.shape)}")
    device = hidden.device.type
    if chunk_rows is None:
        chunk_rows = _CHUNK_ROWS.get(device, _CHUNK_ROWS["cuda"])
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be positive, not {chunk_rows}")
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if cast and hidden.dtype != torch.float64:
        hidden = hidden.to(torch.get_autocast_dtype(device))
    formed = torch.is_grad_enabled() and reduction != "none"
    wanted = [formed and part is not None and part.requires_grad for part in (hidden, weight, bias)]
    return _op(hidden, weight, bias, target, ignore_index, label_smoothing, z_loss, chunk_rows, reduction, *wanted)[0]
