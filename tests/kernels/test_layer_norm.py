"""layer_norm against torch's."""

import pytest
import torch
from torch.nn import functional as F

import cram_kernels as ck


@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_values_and_gradients(with_weight: bool, with_bias: bool, with_residual: bool) -> None:
    def make(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, residual = make(3, 5, 8), make(3, 5, 8) if with_residual else None
    weight, bias = make(8) if with_weight else None, make(8) if with_bias else None
    total = x if residual is None else x + residual
    wanted = F.layer_norm(total, (8,), weight, bias, 1e-5)
    ours = ck.layer_norm(x, weight, bias, residual=residual)
    if with_residual:
        torch.testing.assert_close(ours, (wanted, total))
        ours, wanted = ours[0] * 2 + ours[1], wanted * 2 + total
    else:
        torch.testing.assert_close(ours, wanted)
    parts = [part for part in (x, residual, weight, bias) if part is not None]
    upstream = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad(ours, parts, upstream), torch.autograd.grad(wanted, parts, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_keeps_the_input_dtype_and_computes_wide(
    x_dtype: torch.dtype, weight_dtype: torch.dtype, autocast: bool
) -> None:
    x = (torch.randn(6, 64) + 30).to(x_dtype)
    weight = torch.randn(64).to(weight_dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = ck.layer_norm(x, weight)
    assert ours.dtype == x_dtype
    wanted = F.layer_norm(x.double(), (64,), weight.double())
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[x_dtype]
    torch.testing.assert_close(ours.double(), wanted, atol=tolerance, rtol=tolerance)


def test_eps_and_nan() -> None:
    x = torch.zeros(2, 4)
    x[1, 2] = float("nan")
    ours = ck.layer_norm(x, eps=0.5)
    assert not ours[0].any()
    assert ours[1].isnan().all()
