"""linear_cross_entropy chunk by chunk: the matrix products around the reference or the kernel.

`linear_cross_entropy.py` has the formulas.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cram_kernels._cpu_launchers import turn_into_gradient
from cram_kernels._cross_entropy_kernels import LossTerms, launch_cross_entropy_forward
from cram_kernels._dispatch import use_cpu_kernels, use_triton
from cram_kernels._linear_cross_entropy_kernels import launch_linear_cross_entropy, pad_classes
from cram_kernels.cross_entropy import cross_entropy_reference

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]  # of hidden, weight and bias; None where not needed


class _GradientSums:
    """Gradients of hidden, weight and bias, summed over chunks; None where not needed, and before the first chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, needs_grad: Sequence[bool]) -> None:
        self._weight_operand = weight  # in the dtype of the products
        hidden_needs_grad, self._weight_needs_grad, self._bias_needs_grad = needs_grad
        self.hidden = hidden.new_empty(hidden.shape) if hidden_needs_grad else None
        self.weight: Tensor | None = None
        self.bias_pair: Tensor | None = None  # (classes, 2), whose two columns add up to the gradient of the bias

    def add_chunk(self, rows: slice, hidden: Tensor, grad_logits: Tensor, scale: Tensor) -> None:
        """Add the part of a chunk.

        Args:
            rows: which rows of all the chunk holds.
            hidden: (rows, width), input of the layer.
            grad_logits: (rows, classes), gradient of each row's own loss.
            scale: (rows), weight of each row's loss in the whole.
        """
        if self.hidden is not None:
            torch.mul(grad_logits @ self._weight_operand, scale[:, None], out=self.hidden[rows])
        if self._weight_needs_grad:
            scaled_hidden = (hidden * scale[:, None]).to(grad_logits.dtype)
            self.weight = _add_product(self.weight, grad_logits.t(), scaled_hidden)
        if self._bias_needs_grad:
            # The scale is given as the sum of two numbers. One number, rounded to bf16, would be wrong by the same
            # factor in all rows, and so would their sum.
            rounded = scale.to(grad_logits.dtype)
            scale_pair = torch.stack((rounded, (scale - rounded).to(grad_logits.dtype)), 1)
            self.bias_pair = _add_product(self.bias_pair, grad_logits.t(), scale_pair)

    def finish(self, weight: Tensor, bias: Tensor | None) -> Gradients:
        """Return the gradients in the dtypes of their tensors."""
        grad_bias = None if self.bias_pair is None else self.bias_pair.sum(1)
        return (
            self.hidden,
            None if self.weight is None else self.weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )


def _add_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return total + left @ right in fp32 or wider; on a CPU the first product keeps its dtype while it is alone."""
    wide = torch.promote_types(left.dtype, torch.float32)
    if left.dtype == wide:
        return left @ right if total is None else total.addmm_(left, right)
    if left.device.type == "cuda":  # the only device whose products of half precision give fp32
        if total is None:
            return torch.mm(left, right, out_dtype=wide)
        return torch.addmm(total, left, right, out_dtype=wide, out=total)
    return left @ right if total is None else total.to(wide).add_(left @ right)


def compute_in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    scale: Tensor,
    terms: LossTerms,
    chunk_rows: int,
    needs_grad: Sequence[bool],
) -> tuple[Tensor, Gradients]:
    """Compute the losses (N), and the gradients of the sum of losses * scale.

    Args:
        hidden: (N, width).
        weight: (classes, width).
        bias: (classes), or None.
        target: int64 (N).
        scale: (N), fp32 or wider, 0 in ignored rows.
        terms: of the loss.
        chunk_rows: most rows of a chunk; the chunks are made about equal.
        needs_grad: whether hidden, weight and bias need a gradient.
    """
    weight_operand = weight.to(hidden.dtype)
    sums = _GradientSums(hidden, weight_operand, needs_grad)
    runs_triton = use_triton(hidden)
    classes = len(weight)
    target, is_ignored = target.contiguous(), target == terms.ignore_index
    losses = hidden.new_empty(target.shape, dtype=scale.dtype)
    count = max(1, -(-len(target) // chunk_rows))
    step = max(1, -(-len(target) // count))
    buffer = hidden.new_empty((min(step, len(target)), pad_classes(classes) if runs_triton else classes))
    for start in range(0, max(1, len(target)), step):
        rows = slice(start, start + step)
        chunk = hidden[rows].masked_fill(is_ignored[rows, None], 0.0)  # NaN in an ignored row must not count
        logits = torch.mm(chunk, weight_operand.t(), out=buffer[: len(chunk), :classes])
        if bias is not None:
            logits.add_(bias.to(logits.dtype))
        losses[rows] = consume_logits(logits, target[rows], terms, any(needs_grad), runs_triton)
        if any(needs_grad):
            sums.add_chunk(rows, chunk, logits, scale[rows])
    return losses, sums.finish(weight, bias)


def consume_logits(logits: Tensor, target: Tensor, terms: LossTerms, needs_grad: bool, runs_triton: bool) -> Tensor:
    """Compute the losses (rows) of a chunk. With `needs_grad` its logits become the gradient of each row's loss."""
    if needs_grad and not runs_triton and use_cpu_kernels(logits):
        return turn_into_gradient(logits, target, terms)
    if not runs_triton:
        return cross_entropy_reference(logits, target, terms, in_place=needs_grad)[0]
    if needs_grad:
        return launch_linear_cross_entropy(logits, target, terms)
    return launch_cross_entropy_forward(logits, target, terms)[0]
