"""layer_norm is compared with torch\'s in float64."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

import cram_kernels as ck

# The interpreter truncates fp32 to bf16 where hardware rounds, so bf16 is allowed a whole unit in the last place.
TOLERANCE = {torch.float32: 5e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]


def torch_reference(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, residual: torch.Tensor | None
) -> torch.Tensor:
    total = x if residual is None else x + residual
    return F.layer_norm(total, total.shape[-1:], weight, bias, 1e-5)


def check(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> None:
    """Compare values and gradients of all inputs with float64, relative to the largest entry."""
    inputs = [None if part is None else part.detach().requires_grad_() for part in (x, weight, bias, residual)]
    wide_inputs = [None if part is None else part.detach().double().requires_grad_() for part in inputs]
    tolerance = TOLERANCE[x.dtype]
    computed = ck.layer_norm(*inputs[:3], residual=inputs[3])  # type: ignore[misc]
    expected = torch_reference(*wide_inputs)  # type: ignore[arg-type]
    if residual is not None:
        computed, total = computed
        assert total.dtype == x.dtype
        torch.testing.assert_close(total.double(), wide_inputs[0] + wide_inputs[3], atol=tolerance, rtol=tolerance)
    assert isinstance(computed, torch.Tensor)
    assert computed.dtype == x.dtype
    torch.testing.assert_close(computed.double(), expected, atol=tolerance, rtol=tolerance)
    upstream = torch.randn(expected.shape, device=x.device).to(x.dtype)
    computed_grad = torch.autograd.grad(computed, [part for part in inputs if part is not None], upstream)
    expected_grad = torch.autograd.grad(expected, [part for part in wide_inputs if part is not None], upstream.double())
    for left, right in zip(computed_grad, expected_grad, strict=True):
        largest = float(right.abs().max()) if right.numel() else 0.0
        torch.testing.assert_close(left.double(), right, atol=tolerance * max(1.0, largest), rtol=tolerance)


def randn(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> torch.Tensor:
    return torch.randn(*shape, device=device).to(dtype)


@pytest.mark.parametrize("with_weight", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_values_and_gradients(
    with_weight: bool, with_bias: bool, with_residual: bool, dtype: torch.dtype, device: torch.device, backend: str
) -> None:
    rows = 4099 if backend == "gpu" else 21
    x = randn(rows, 64, dtype=dtype, device=device)
    residual = randn(rows, 64, dtype=dtype, device=device) if with_residual else None
    weight, bias = (randn(64, device=device) if there else None for there in (with_weight, with_bias))
    check(x, weight, bias, residual)


@pytest.mark.no_launch
def test_float64_takes_the_reference(device: torch.device) -> None:
    check(*(torch.randn(*shape, dtype=torch.float64, device=device) for shape in ((3, 8), (8,), (8,), (3, 8))))


@pytest.mark.parametrize("width", [1, 2, 3, 17, 100, 768, 1000, 1024, 5000, 8192])
def test_every_width(width: int, device: torch.device) -> None:
    check(randn(5, width, device=device), randn(width, device=device), randn(width, device=device))


@pytest.mark.no_launch
@pytest.mark.parametrize("width", [8193, 65_537])
def test_a_row_too_wide_to_be_held_takes_the_reference(width: int, device: torch.device) -> None:
    check(randn(3, width, device=device), randn(width, device=device))


@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 5, 8), (2, 3, 5, 8)])
def test_one_to_four_dimensions(shape: tuple[int, ...], device: torch.device) -> None:
    check(randn(*shape, device=device), randn(8, device=device), residual=randn(*shape, device=device))


@pytest.mark.no_launch
@pytest.mark.parametrize("shape", [(0, 8), (3, 0, 8)])
def test_no_rows_give_no_rows_and_zero_gradients(shape: tuple[int, ...], device: torch.device) -> None:
    x, weight = randn(*shape, device=device).requires_grad_(), randn(8, device=device).requires_grad_()
    y = ck.layer_norm(x, weight)
    assert isinstance(y, torch.Tensor)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None and x.grad.shape == shape
    assert weight.grad is not None and not weight.grad.any()


def test_any_strides(strided: Callable[[], torch.Tensor], device: torch.device) -> None:
    check(strided(), *randn(16, 2, device=device).unbind(1))
    check(strided(), randn(16, device=device), residual=strided())


def test_an_upstream_gradient_of_any_strides(device: torch.device) -> None:
    x, weight = randn(5, 16, device=device).requires_grad_(), randn(16, device=device).requires_grad_()
    for upstream in (torch.ones((), device=device).expand(5, 16), randn(16, 5, device=device).t()):
        computed = torch.autograd.grad(ck.layer_norm(x, weight), (x, weight), upstream)  # type: ignore[arg-type]
        expected = torch.autograd.grad(F.layer_norm(x, (16,), weight), (x, weight), upstream)
        for left, right in zip(computed, expected, strict=True):
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", ["x", "residual", "weight", "bias"])
def test_a_gradient_for_one_input_alone(which: str, device: torch.device) -> None:
    parts = {
        name: randn(*shape, device=device)
        for name, shape in (("x", (4, 8)), ("residual", (4, 8)), ("weight", (8,)), ("bias", (8,)))
    }
    parts[which].requires_grad_()
    computed, total = ck.layer_norm(parts["x"], parts["weight"], parts["bias"], residual=parts["residual"])
    upstream = torch.randn_like(computed)
    (computed_grad,) = torch.autograd.grad(computed, (parts[which],), upstream)
    expected = torch_reference(parts["x"], parts["weight"], parts["bias"], parts["residual"])
    (expected_grad,) = torch.autograd.grad(expected, (parts[which],), upstream)
    torch.testing.assert_close(computed_grad, expected_grad, atol=1e-5, rtol=1e-5)
    assert total.requires_grad == (which in ("x", "residual")) or which in ("weight", "bias")


@pytest.mark.parametrize("used", ["both", "normal", "sum"])
def test_either_output_may_be_left_unused(used: str, device: torch.device) -> None:
    x, residual = (randn(4, 8, device=device).requires_grad_() for _ in range(2))
    factors = {"both": (2.0, 3.0), "normal": (2.0, 0.0), "sum": (0.0, 3.0)}[used]

    def loss(outputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return sum((f * out.pow(3).sum() for f, out in zip(factors, outputs, strict=True) if f), torch.zeros(()))

    computed = torch.autograd.grad(loss(ck.layer_norm(x, residual=residual)), (x, residual))  # type: ignore[arg-type]
    total = x + residual
    expected = torch.autograd.grad(loss((F.layer_norm(total, (8,)), total)), (x, residual))
    for left, right in zip(computed, expected, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-5)


def test_backward_twice_gives_the_same_and_changes_no_input(device: torch.device) -> None:
    x, weight = randn(40, 96, device=device).requires_grad_(), randn(96, device=device).requires_grad_()
    before = x.detach().clone()
    y = ck.layer_norm(x, weight)
    assert isinstance(y, torch.Tensor)
    upstream = torch.randn_like(y)
    first = torch.autograd.grad(y, (x, weight), upstream, retain_graph=True)
    second = torch.autograd.grad(y, (x, weight), upstream)
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
    assert torch.equal(x, before)


def test_a_second_derivative_is_refused(device: torch.device) -> None:
    x = randn(4, 8, device=device).requires_grad_()
    y = ck.layer_norm(x)
    assert isinstance(y, torch.Tensor)
    (grad,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="layer_norm can be differentiated once, not twice"):
        grad.sum().backward()


@pytest.mark.parametrize("x_dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_keeps_the_input_dtype_and_computes_wide(
    x_dtype: torch.dtype, weight_dtype: torch.dtype, autocast: bool, device: torch.device
) -> None:
    x = (torch.randn(6, 64, device=device) + 30).to(x_dtype).requires_grad_()
    weight = torch.randn(64, device=device).to(weight_dtype).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        computed = ck.layer_norm(x, weight)
    assert isinstance(computed, torch.Tensor)
    assert computed.dtype == x_dtype
    expected = F.layer_norm(x.double(), (64,), weight.double())
    tolerance = TOLERANCE[x_dtype]
    torch.testing.assert_close(computed.double(), expected, atol=tolerance, rtol=tolerance)
    computed.sum().backward()
    assert (x.grad.dtype, weight.grad.dtype) == (x_dtype, weight_dtype)  # type: ignore[union-attr]


def test_eps_and_values_that_are_not_finite(device: torch.device) -> None:
    x = torch.zeros(3, 4, device=device)
    x[1, 2], x[2, 0] = float("nan"), float("inf")
    computed = ck.layer_norm(x, eps=0.5)
    assert isinstance(computed, torch.Tensor)
    assert not computed[0].any()
    assert computed[1:].isnan().all()


def test_a_residual_that_broadcasts_or_has_another_dtype(device: torch.device) -> None:
    x, residual = randn(4, 8, device=device), randn(8, device=device)
    check(x, residual=residual)
    y, s = ck.layer_norm(x.to(torch.bfloat16), residual=x)
    assert y.dtype == s.dtype == torch.float32


@pytest.mark.no_launch
def test_shapes_that_do_not_fit_are_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"weight \(3,\) does not fit x \(2, 8\): it must be \(8,\)"):
        ck.layer_norm(randn(2, 8, device=device), torch.ones(3))
    with pytest.raises(ValueError, match="x is a scalar"):
        ck.layer_norm(torch.ones(()))
