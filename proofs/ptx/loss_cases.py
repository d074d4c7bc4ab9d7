"""Cases of cross_entropy and of the kernel of linear_cross_entropy."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

import cram_kernels  # noqa: F401 (registers the ops)
from cram_kernels._cross_entropy_kernels import LossTerms
from cram_kernels._linear_cross_entropy_kernels import launch_linear_cross_entropy, pad_classes
from proofs.ptx.cases import DTYPES, TOLERANCES, Case, Check, draw, set_hard_values

_ops: Any = torch.ops.cram
ROWS, IGNORED = 4, -100
PLAIN, SMOOTHED = LossTerms(IGNORED, 0.0, 0.0), LossTerms(IGNORED, 0.1, 1e-3)
# One class, less than a block, aligned and odd ones beyond a block, and rows that are held whole and that are not.
CLASSES = (1, 100, 1024, 5003, 8192, 32_768, 50_257)


def make_target(classes: int) -> Tensor:
    """Return the first class, the last one, an ignored row, and one in between."""
    return torch.tensor([0, classes - 1, IGNORED, classes // 2])


def compute_losses(logits: Tensor, target: Tensor, terms: LossTerms) -> tuple[Tensor, Tensor, Tensor]:
    """Compute losses, log-sum-exp and the gradient of each row's loss, in float64."""
    x = logits.double()
    valid = target != terms.ignore_index
    index = torch.where(valid, target, 0)[:, None]
    row_max = x.amax(-1)
    lse = row_max + (x - row_max[:, None]).exp().sum(-1).log()  # NaN where a logit is infinite, as torch's losses are
    losses = (1 - terms.label_smoothing) * (lse - x.gather(1, index)[:, 0]) + terms.z_loss * lse**2
    if terms.label_smoothing:
        losses = losses + terms.label_smoothing * (lse - x.mean(-1))
    gradient = torch.exp(x - lse[:, None]) * (1 + 2 * terms.z_loss * lse)[:, None]
    gradient = gradient - terms.label_smoothing / x.shape[1]
    gradient = gradient.scatter_add(1, index, torch.full(index.shape, terms.label_smoothing - 1, dtype=x.dtype))
    return losses.where(valid, 0.0), lse, gradient.where(valid[:, None], 0.0)


def draw_logits(dtype: str, classes: int, values: str) -> Tensor:
    """Draw logits; `cold` gives one row nothing but -inf beside its target, `wide` large numbers."""
    logits = draw(ROWS, classes, dtype=dtype, scale=30.0 if values == "wide" else 2.0)
    if values == "cold":
        logits[1, :-1] = float("-inf")
        return logits
    return set_hard_values(logits, values)


def check_cross_entropy(dtype: str, classes: int, terms: LossTerms, values: str = "") -> Iterable[Check]:
    """Check losses and log-sum-exp."""
    logits, target = draw_logits(dtype, classes, values), make_target(classes)
    losses, lse_parts = _ops.cross_entropy(logits, target, *terms)
    expected, lse, _ = compute_losses(logits, target, terms)
    valid = target != IGNORED
    # A single class has a loss of 0, up to the error of a logarithm near 1, which is absolute.
    yield Check("losses", losses, expected, TOLERANCES["fp32"], max(1.0, _largest(expected)))
    yield Check("lse", lse_parts.sum(0)[valid], lse[valid], TOLERANCES["fp32"], max(1.0, _largest(lse)))


def _largest(x: Tensor) -> float:
    return float(x.nan_to_num(0.0, 0.0, 0.0).abs().max())


def check_cross_entropy_backward(dtype: str, classes: int, terms: LossTerms, values: str = "") -> Iterable[Check]:
    """Check the gradient of the logits, from the parts of the log-sum-exp in fp32."""
    logits, target = draw_logits(dtype, classes, values), make_target(classes)
    grad_losses = draw(ROWS, seed=7)
    row_max = logits.double().amax(-1)
    _, lse, gradient = compute_losses(logits, target, terms)
    lse_parts = torch.stack((row_max, lse - row_max)).float()
    got = _ops.cross_entropy_backward(grad_losses, logits, target, lse_parts, *terms)
    expected = (gradient * grad_losses.double()[:, None]).where((target != IGNORED)[:, None], 0.0)
    scale = float(grad_losses.abs().max()) if classes == 1 else None
    yield Check("grad_logits", got, expected, TOLERANCES[dtype], scale)


def check_linear_cross_entropy(
    dtype: str, classes: int, terms: LossTerms, values: str = "", padded: bool = True
) -> Iterable[Check]:
    """Check losses, and the gradient that replaces the logits, whose rows have padding behind them or none."""
    logits, target = draw_logits(dtype, classes, values), make_target(classes)
    buffer = torch.full((ROWS, pad_classes(classes) if padded else classes), float("nan"), dtype=DTYPES[dtype])
    chunk = buffer[:, :classes]
    chunk.copy_(logits)
    losses = launch_linear_cross_entropy(chunk, target, terms)
    expected, _, gradient = compute_losses(logits, target, terms)
    yield Check("losses", losses, expected, TOLERANCES["fp32"], max(1.0, _largest(expected)))
    yield Check("grad_logits", chunk, gradient, TOLERANCES[dtype], 1.0 if classes == 1 else None)


def cross_entropy_cases(dtype: str) -> Iterator[Case]:
    """Yield plain and smoothed losses for all vocabularies, and hard values."""
    for classes, terms in product(CLASSES, (PLAIN, SMOOTHED)):
        about = f"{ROWS}x{classes}{' smoothed' if terms is SMOOTHED else ''}"
        quick = classes in (100, 5003)
        forward = partial(check_cross_entropy, dtype, classes, terms)
        backward = partial(check_cross_entropy_backward, dtype, classes, terms)
        yield Case("cross_entropy_forward", about, dtype, forward, quick)
        yield Case("cross_entropy_backward", about, dtype, backward, quick)
    for classes, values in product((100, 5003), ("offset", "nan", "inf", "cold", "wide", "apart")):
        about = f"{ROWS}x{classes}, {values}"
        forward = partial(check_cross_entropy, dtype, classes, PLAIN, values)
        yield Case("cross_entropy_forward", about, dtype, forward)
        backward = partial(check_cross_entropy_backward, dtype, classes, PLAIN, values)
        yield Case("cross_entropy_backward", about, dtype, backward)


def linear_cross_entropy_cases(dtype: str) -> Iterator[Case]:
    """Yield plain and smoothed losses for all vocabularies, rows without padding, and hard values."""
    for classes, terms in product(CLASSES, (PLAIN, SMOOTHED)):
        about = f"{ROWS}x{classes}{' smoothed' if terms is SMOOTHED else ''}"
        call = partial(check_linear_cross_entropy, dtype, classes, terms)
        yield Case("linear_cross_entropy", about, dtype, call, quick=classes in (100, 50_257) and terms is PLAIN)
    for classes in (100, 5003, 50_257):
        call = partial(check_linear_cross_entropy, dtype, classes, PLAIN, "", False)
        yield Case("linear_cross_entropy", f"{ROWS}x{classes} without padding", dtype, call)
    for classes, values in product((100, 50_257), ("offset", "nan", "inf", "cold", "wide")):
        call = partial(check_linear_cross_entropy, dtype, classes, PLAIN, values)
        yield Case("linear_cross_entropy", f"{ROWS}x{classes}, {values}", dtype, call)
