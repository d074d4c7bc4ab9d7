"""Cross-entropy of a linear layer's output, computed in chunks of rows, so that all logits never exist at once.

    x = hidden @ weight^T + bias,    loss_i and d loss_i / d x_ij as in `cross_entropy`

For a reduced loss the forward pass also computes the gradients of hidden, weight and bias, chunk by chunk: it turns the
logits of a chunk into their gradient in the same buffer. The backward pass only scales these gradients. For reduction
"none" the gradients of the losses are not known before the backward pass, which therefore computes the logits again.
The products run in the dtype of hidden. The gradients of weight and bias are summed in fp32.

The work on the chunks is in `_linear_cross_entropy_chunks.py`, the kernel in `_linear_cross_entropy_kernels.py`.

Source: arXiv:2410.10989 section 3.2, changed: fp32 sums, p - 1 formed in fp32 (a confident target loses it in bf16),
and a row's scale applied to the narrow side of each product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cram_kernels._cross_entropy_kernels import LossTerms
from cram_kernels._dispatch import refuse_double_backward, register_autograd, register_op
from cram_kernels._linear_cross_entropy_chunks import Gradients, compute_in_chunks
from cram_kernels.cross_entropy import check_target_and_reduction

# Most rows of a chunk. More rows make the products efficient and add to the weight's gradient less often; fewer rows
# keep the logits a small part of the memory.
_CHUNK_ROWS = {"cpu": 1024, "cuda": 4096}


# --- op, fake, autograd


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    chunk_rows: int,
    reduction: str,
    *needs_grad: bool,
) -> tuple[Tensor | None, ...]:
    terms = LossTerms(ignore_index, label_smoothing, z_loss)
    scale = (target != ignore_index).to(torch.promote_types(hidden.dtype, torch.float32))
    count = scale.sum()
    if reduction == "mean":
        scale = scale / count.clamp(min=1)
    losses, grads = compute_in_chunks(hidden, weight, bias, target, scale, terms, chunk_rows, needs_grad)
    if reduction == "none":
        return losses, *grads
    return losses.sum() / count if reduction == "mean" else losses.sum(), *grads


def _forward_fake(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *numbers: Any
) -> tuple[Tensor | None, ...]:
    *_, reduction, hidden_needs_grad, weight_needs_grad, bias_needs_grad = numbers
    shape = target.shape if reduction == "none" else ()
    loss = hidden.new_empty(shape, dtype=torch.promote_types(hidden.dtype, torch.float32))
    return loss, *_allocate_gradients(hidden, weight, bias, (hidden_needs_grad, weight_needs_grad, bias_needs_grad))


def _allocate_gradients(hidden: Tensor, weight: Tensor, bias: Tensor | None, needs_grad: Sequence[bool]) -> Gradients:
    grad_hidden, grad_weight, grad_bias = (
        part.new_empty(part.shape) if needed and part is not None else None
        for part, needed in zip((hidden, weight, bias), needs_grad, strict=True)
    )
    return grad_hidden, grad_weight, grad_bias


def _rows_backward(
    grad_losses: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    chunk_rows: int,
    *needs_grad: bool,
) -> Gradients:
    terms = LossTerms(ignore_index, label_smoothing, z_loss)
    scale = grad_losses.masked_fill(target == ignore_index, 0.0)
    return compute_in_chunks(hidden, weight, bias, target, scale, terms, chunk_rows, needs_grad)[1]


def _rows_backward_fake(
    _grad_losses: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> Gradients:
    return _allocate_gradients(hidden, weight, bias, rest[-3:])


def _scale_gradients(grad_loss: Tensor, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    # The factor gets as many dimensions as the gradient. On a GPU a scalar would first be rounded to the gradient's
    # dtype.
    return tuple(
        None if grad is None else torch.mul(grad, grad_loss.view([1] * grad.ndim), out=grad.new_empty(grad.shape))
        for grad in grads
    )


def _scale_gradients_fake(_grad_loss: Tensor, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if grad is None else grad.new_empty(grad.shape) for grad in grads)


_INPUTS = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor target, int ignore_index, float label_smoothing, float z_loss,"
    " int chunk_rows"
)
_NEEDS_GRAD = "bool hidden_needs_grad, bool weight_needs_grad, bool bias_needs_grad"
_GRADIENTS = "Tensor, Tensor, Tensor"
_op = register_op(
    f"linear_cross_entropy({_INPUTS}, str reduction, {_NEEDS_GRAD}) -> (Tensor, {_GRADIENTS})",
    _forward,
    _forward_fake,
)
_rows_backward_op = register_op(
    f"linear_cross_entropy_rows_backward(Tensor grad_losses, {_INPUTS}, {_NEEDS_GRAD}) -> ({_GRADIENTS})",
    _rows_backward,
    _rows_backward_fake,
)
_backward_op = register_op(
    "linear_cross_entropy_backward(Tensor grad_loss, Tensor? grad_hidden, Tensor? grad_weight, Tensor? grad_bias)"
    f" -> ({_GRADIENTS})",
    _scale_gradients,
    _scale_gradients_fake,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
    _, *grads = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(grad for grad in grads if grad is not None))
    hidden, weight, bias, target, *ctx.numbers, ctx.reduction, _, _, _ = inputs
    ctx.save_for_backward(*((hidden, weight, bias, target) if ctx.reduction == "none" else grads))


def _autograd_backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    needs_grad = ctx.needs_input_grad[:3]
    grads: Sequence[Tensor | None] = (None, None, None)
    if grad_loss is not None and ctx.reduction == "none":
        grads = _rows_backward_op(grad_loss, *ctx.saved_tensors, *ctx.numbers, *needs_grad)
    elif grad_loss is not None:
        grads = _backward_op(grad_loss, *ctx.saved_tensors)
    return *grads, *[None] * 9


register_autograd(_op, _autograd_backward, _setup_context)
refuse_double_backward(_rows_backward_op)
refuse_double_backward(_backward_op)


# --- public


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
    """Compute the cross-entropy in nats of hidden @ weight^T + bias, without ever holding all logits.

    The result can be differentiated once.

    Args:
        hidden: (N, width), any floating dtype. The products run in it, or under autocast in the autocast dtype.
        weight: (classes, width).
        target: int64 (N), class indices or `ignore_index`. An index out of range is treated as in `cross_entropy`.
        bias: (classes), or None.
        ignore_index: target of the rows that do not count, whatever they hold.
        label_smoothing: share of the target that is spread evenly over the classes.
        z_loss: coefficient of the squared log-sum-exp that is added to the loss of each valid row.
        reduction: "none", "sum", or "mean" over the valid rows, which is NaN without any, as torch's.
        chunk_rows: most rows of logits that are held at a time. None chooses a number for the device.

    Returns:
        fp32, or fp64 for fp64 inputs: (N) for "none", else a scalar.

    Raises:
        IndexError: on a CPU, for a target that is not a class.
        TypeError: for a target that is not int64.
        ValueError: for another reduction, chunks of no rows, and shapes that do not fit.
    """
    check_target_and_reduction(target, reduction)
    _check_shapes(hidden, weight, bias, target)
    device = hidden.device.type
    if chunk_rows is None:
        chunk_rows = _CHUNK_ROWS.get(device, _CHUNK_ROWS["cuda"])
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows must be positive, not {chunk_rows}")
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and hidden.dtype != torch.float64:
        hidden = hidden.to(torch.get_autocast_dtype(device))
    # For reduction "none" the gradients are computed in the backward pass.
    in_forward = torch.is_grad_enabled() and reduction != "none"
    needs_grad = [in_forward and part is not None and part.requires_grad for part in (hidden, weight, bias)]
    numbers = (ignore_index, label_smoothing, z_loss, chunk_rows)
    loss: Tensor = _op(hidden, weight, bias, target, *numbers, reduction, *needs_grad)[0]
    return loss


def _check_shapes(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> None:
    """Refuse shapes other than (N, width), (classes, width), (classes) and (N)."""
    is_layer = hidden.ndim == weight.ndim == 2 and hidden.shape[1] == weight.shape[1] and len(weight)
    if not is_layer or target.shape != hidden.shape[:1]:
        shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"{shapes} do not fit: they must be (N, width), (classes, width) and (N)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {tuple(bias.shape)} does not fit weight {tuple(weight.shape)}")
