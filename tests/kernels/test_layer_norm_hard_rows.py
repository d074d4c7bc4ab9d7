"""layer_norm of rows that cost fp32 its digits: a large offset, a variance near 0, and an eps of 0."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck

TOLERANCE = 5e-5  # of the largest entry, in fp32


def compute(
    function: Callable[..., Any], x: Tensor, weight: Tensor, bias: Tensor, upstream: Tensor, eps: float
) -> list[Tensor]:
    """Return y, and the gradients of x, weight and bias."""
    leaves = [part.detach().clone().requires_grad_() for part in (x, weight, bias)]
    y = function(*leaves, eps)
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream)]


def ours(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    y = ck.layer_norm(x, weight, bias, eps=eps)
    assert isinstance(y, Tensor)
    return y


def torchs(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def random_parts(rows: int, width: int, device: torch.device) -> list[Tensor]:
    """Return a weight, a bias and an upstream gradient."""
    return [torch.randn(*shape, device=device) for shape in ((width,), (width,), (rows, width))]


HARD_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "at 10,000": lambda noise: noise + 1e4,
    "at -10,000": lambda noise: noise - 1e4,
    "at 1,000,000": lambda noise: noise + 1e6,
    "at offsets of their own": lambda noise: noise + 1e4 * torch.randn_like(noise[:, :1]),
    "one of them at 10,000": lambda noise: noise + 1e4 * (torch.arange(len(noise), device=noise.device) == 3)[:, None],
    "constant": lambda noise: torch.full_like(noise, 10_000.1),
    "nearly constant": lambda noise: 1 + 1e-3 * noise,
    "small": lambda noise: 1e-6 * noise,
}


@pytest.mark.parametrize("rows_are", HARD_ROWS)
@pytest.mark.parametrize("width", [64, 768, 8192, 8193])  # the last one takes the reference
def test_fp32_rows_are_as_exact_as_others(
    rows_are: str, width: int, device: torch.device, request: pytest.FixtureRequest
) -> None:
    """Against float64, computed from the same fp32 rows."""
    if width > 8192:
        request.node.add_marker(pytest.mark.no_launch)
    x = HARD_ROWS[rows_are](torch.randn(6, width, device=device))
    weight, bias, upstream = random_parts(6, width, device)
    computed = compute(ours, x, weight, bias, upstream, 1e-5)
    wide = [part.double() for part in (x, weight, bias, upstream)]
    for left, right in zip(computed, compute(torchs, *wide, 1e-5), strict=True):
        torch.testing.assert_close(left.double(), right, atol=TOLERANCE * max(1.0, float(right.abs().max())), rtol=0)


def test_rows_at_an_offset_beside_a_row_that_is_not_finite(device: torch.device) -> None:
    x = torch.randn(4, 64, device=device) + 1e4
    x[1, 3], x[2, 0] = float("nan"), float("inf")
    y = ck.layer_norm(x)
    assert isinstance(y, Tensor)
    assert y[1:3].isnan().all()
    torch.testing.assert_close(y.double()[::3], F.layer_norm(x.double(), (64,))[::3], atol=TOLERANCE, rtol=0)


# Standard deviations of rows whose variances are: far above the least normal fp32, 1.2e-38; below it; 0 by underflow;
# and 0.
@pytest.mark.parametrize("deviation", [1e-10, 3e-20, 1e-20, 1e-24, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_eps_of_0_gives_what_torch_gives(deviation: float, dtype: torch.dtype, device: torch.device) -> None:
    """Where torch's fp32 gradient of x overflows, ours may be finite.

    In half precision the infinity of torch may be NaN here, and the other way round: they differ between its devices.
    """
    x = (deviation * torch.randn(6, 64, device=device)).to(dtype)
    weight, bias, upstream = random_parts(6, 64, device)
    y, *grads = compute(ours, x, weight, bias, upstream.to(dtype), 0.0)
    parts = [part.cpu().float() for part in (x, weight, bias, upstream.to(dtype))]
    expected_y, *expected_grads = compute(torchs, *parts, 0.0)
    tolerance = TOLERANCE if dtype == torch.float32 else 2e-2
    if dtype == torch.float32:
        torch.testing.assert_close(y.cpu(), expected_y, atol=tolerance, rtol=tolerance, equal_nan=True)
    assert torch.equal(y.cpu().isfinite(), expected_y.isfinite())
    for computed, expected in zip((y, *grads), (expected_y, *expected_grads), strict=True):
        is_finite = expected.isfinite()
        left, right = computed.cpu().float()[is_finite], expected[is_finite]
        torch.testing.assert_close(left, right, atol=tolerance * max([1.0, *right.abs().tolist()]), rtol=0)


def test_a_constant_row_has_no_deviation_to_divide_by(device: torch.device) -> None:
    assert ck.layer_norm(torch.ones(2, 64, device=device), eps=0.0).isnan().all()  # type: ignore[union-attr]
