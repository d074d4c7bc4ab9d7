"""What is summed over rows is as exact for 8,192 rows as for few, against float64 computed from the same inputs.

Sums in half precision, or in a single running fp32 number, would be wrong by far more than the tolerances here.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck
from cram_kernels._settings import LaunchSettings, choose_by
from cram_kernels._tuned import Choice

ROWS = 8192
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])

Function = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def many_rows_a_program(backend: str) -> Iterator[None]:
    """In the interpreter, where each tile takes long, let tiles be of 1,024 rows; those that a program sums, of 64."""

    def choose(choice: Choice, rule: LaunchSettings) -> LaunchSettings:
        return replace(rule, rows=64 if choice.kernel == "layer_norm_backward" else 1024)

    with choose_by(choose) if backend == "interpreter" else nullcontext():
        yield


def compare(ours: Function, torchs: Function, inputs: list[Tensor], upstream: Tensor) -> list[float]:
    """Return the errors of a function and of the gradients of its inputs, as shares of their norms."""

    def run(function: Function, leaves: list[Tensor]) -> list[Tensor]:
        result = function(*leaves)
        return [result.detach(), *torch.autograd.grad(result, leaves, upstream.to(result.dtype))]

    computed = run(ours, [part.detach().requires_grad_() for part in inputs])
    expected = run(torchs, [part.detach().double().requires_grad_() for part in inputs])
    return [float((c.double() - e).norm() / e.norm()) for c, e in zip(computed, expected, strict=True)]


@pytest.mark.parametrize("coherent", [False, True])
@each_dtype
def test_gradients_of_weight_and_bias_of_layer_norm(dtype: torch.dtype, coherent: bool, device: torch.device) -> None:
    """With coherent rows a sum grows steadily, and a running sum in fp32 adds small numbers to a large one."""
    x, (weight, bias) = torch.randn(ROWS, 8, device=device).to(dtype), torch.randn(2, 8, device=device)
    upstream = (torch.randn(ROWS, 8, device=device) + 3 * coherent).to(dtype)
    y_error, x_error, *errors = compare(
        ck.layer_norm,  # type: ignore[arg-type]
        lambda x, w, b: F.layer_norm(x, (8,), w, b),
        [x, weight, bias],
        upstream,
    )
    assert max(y_error, x_error) < max(2e-6, torch.finfo(dtype).eps)
    assert max(errors) < (5e-5 if coherent else 5e-6)


@pytest.fixture
def target(device: torch.device) -> Tensor:
    """Targets of 10 classes, a fifth of them ignored."""
    ignored = torch.rand(ROWS, device=device) < 0.2
    return torch.randint(0, 10, (ROWS,), device=device).masked_fill(ignored, -100)


def upstream_of_loss(reduction: str, device: torch.device) -> Tensor:
    """Return 0.75 for a scalar, and numbers about it for the losses of rows."""
    return torch.linspace(0.5, 1, ROWS, device=device) if reduction == "none" else torch.tensor(0.75, device=device)


@each_reduction
@each_dtype
def test_losses_of_cross_entropy(dtype: torch.dtype, reduction: str, target: Tensor, device: torch.device) -> None:
    loss_error, grad_error = compare(
        lambda x: ck.cross_entropy(x, target, label_smoothing=0.1, reduction=reduction),
        lambda x: F.cross_entropy(x, target, label_smoothing=0.1, reduction=reduction),
        [(3 * torch.randn(ROWS, 10, device=device)).to(dtype)],
        upstream_of_loss(reduction, device),
    )
    assert loss_error < 1e-6
    assert grad_error < max(1e-6, torch.finfo(dtype).eps)


@each_reduction
@each_dtype
def test_losses_and_gradients_of_linear_cross_entropy(
    dtype: torch.dtype, reduction: str, target: Tensor, device: torch.device
) -> None:
    """In half precision the logits are rounded, and a chunk's gradients once more: the sum of 64 chunks must not be."""
    hidden, weight, bias = (torch.randn(*shape, device=device).to(dtype) for shape in ((ROWS, 8), (10, 8), (10,)))
    loss_error, hidden_error, *errors = compare(
        lambda h, w, b: ck.linear_cross_entropy(h, w, target, bias=b, reduction=reduction, chunk_rows=128),
        lambda h, w, b: F.cross_entropy(h @ w.t() + b, target, reduction=reduction),
        [hidden, weight.float(), bias.float()],
        upstream_of_loss(reduction, device),
    )
    assert loss_error < max(1e-6, torch.finfo(dtype).eps * (1 if reduction == "none" else 0.1))
    assert hidden_error < max(1e-6, torch.finfo(dtype).eps)
    assert max(errors) < max(1e-6, torch.finfo(dtype).eps / 2)
