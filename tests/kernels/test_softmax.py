"""softmax against torch's."""

import pytest
import torch

import cram_kernels as ck


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients(scale: float, masked: bool) -> None:
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 1, 6) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True
    scores = x * scale if mask is None else (x * scale).masked_fill(~mask, float("-inf"))
    wanted = scores.softmax(-1)
    ours = ck.softmax(x, scale=scale, mask=mask)
    torch.testing.assert_close(ours, wanted)
    upstream = torch.randn_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(ours, x, upstream)[0], torch.autograd.grad(wanted, x, upstream)[0])


def test_a_row_masked_throughout_is_zero_with_zero_gradient() -> None:
    x = torch.randn(2, 5, requires_grad=True)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[0] = False
    out = ck.softmax(x, mask=mask)
    assert not out[0].any()
    (out * torch.randn(2, 5)).sum().backward()
    assert x.grad is not None
    assert not x.grad[0].any()
    assert x.grad[1].any()


def test_kept_values_all_minus_infinity_are_nan_as_torchs() -> None:
    x = torch.full((1, 3), float("-inf"))
    assert ck.softmax(x).isnan().all()
    assert ck.softmax(x, mask=torch.tensor([[True, True, False]]))[0, :2].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_keeps_the_input_dtype_under_autocast(dtype: torch.dtype, scale: float) -> None:
    x = torch.randn(4, 64).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        ours = ck.softmax(x, scale=scale)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), (x.double() * scale).softmax(-1), atol=4e-3, rtol=8e-3)
