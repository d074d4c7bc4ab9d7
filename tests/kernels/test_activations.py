"""geglu and swiglu are compared with torch's activations in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck

# NumPy computes in the interpreter. It warns of operations that a GPU does silently.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|All-NaN slice) encountered:RuntimeWarning")
CASES = {"geglu": (ck.geglu, F.gelu), "swiglu": (ck.swiglu, F.silu)}
# The interpreter truncates fp32 to bf16 where hardware rounds, so bf16 is allowed a whole unit in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(params=list(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def torch_reference(name: str, x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return CASES[name][1](first) * second


def check(name: str, x: Tensor) -> None:
    """Compare values and gradients with float64, relative to the largest entry."""
    inputs = x.detach().requires_grad_()
    wide_inputs = x.detach().double().requires_grad_()
    tolerance = TOLERANCE[x.dtype]
    computed, expected = CASES[name][0](inputs), torch_reference(name, wide_inputs)
    assert (computed.dtype, computed.shape) == (x.dtype, expected.shape)
    upstream = torch.randn(expected.shape, device=x.device).to(x.dtype)
    (computed_grad,) = torch.autograd.grad(computed, inputs, upstream)
    (expected_grad,) = torch.autograd.grad(expected, wide_inputs, upstream.double())
    for left, right in ((computed, expected), (computed_grad, expected_grad)):
        torch.testing.assert_close(
            left.double(), right, atol=tolerance * max(1.0, float(right.detach().abs().max())), rtol=tolerance
        )


def randn(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_values_and_gradients(name: str, dtype: torch.dtype, device: torch.device, backend: str) -> None:
    rows, width = (4099, 2 * 3072) if backend == "gpu" else (21, 2 * 300)
    check(name, randn(rows, width, dtype=dtype, device=device))


@pytest.mark.no_launch
def test_float64_takes_the_reference(name: str, device: torch.device) -> None:
    x = torch.randn(3, 8, dtype=torch.float64, device=device)
    check(name, x)
    assert torch.autograd.gradcheck(CASES[name][0], (x.requires_grad_(),))


@pytest.mark.parametrize("half", [1, 2, 3, 17, 256, 257, 1000, 32_769])
def test_every_width(name: str, half: int, device: torch.device) -> None:
    check(name, randn(3, 2 * half, device=device))


@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 5, 8), (2, 3, 5, 8)])
def test_one_to_four_dimensions(name: str, shape: tuple[int, ...], device: torch.device) -> None:
    check(name, randn(*shape, device=device))


@pytest.mark.no_launch
@pytest.mark.parametrize("shape", [(0, 8), (3, 0, 8), (3, 0)])
def test_no_rows_and_no_columns(name: str, shape: tuple[int, ...], device: torch.device) -> None:
    x = randn(*shape, device=device).requires_grad_()
    y = CASES[name][0](x)
    y.sum().backward()
    assert y.shape == (*shape[:-1], shape[-1] // 2)
    assert x.grad is not None and x.grad.shape == x.shape


def test_any_strides(name: str, strided: Callable[[], Tensor]) -> None:
    check(name, strided())


def test_an_upstream_gradient_of_any_strides(name: str, device: torch.device) -> None:
    x = randn(5, 16, device=device).requires_grad_()
    for upstream in (torch.ones((), device=device).expand(5, 8), randn(8, 5, device=device).t()):
        (computed_grad,) = torch.autograd.grad(CASES[name][0](x), x, upstream)
        (expected_grad,) = torch.autograd.grad(torch_reference(name, x), x, upstream)
        torch.testing.assert_close(computed_grad, expected_grad, atol=1e-5, rtol=1e-5)


def test_large_and_not_finite_values_give_the_results_of_torch(name: str, device: torch.device) -> None:
    first = torch.tensor([1e4, -1e4, 20.0, -20.0, float("nan"), float("inf"), -float("inf"), 0.0], device=device)
    x = torch.stack([torch.cat([first, torch.full((8,), value, device=device)]) for value in (2.0, float("nan"))])
    x.requires_grad_()
    computed, expected = CASES[name][0](x), torch_reference(name, x)
    torch.testing.assert_close(computed, expected, atol=1e-5, rtol=1e-5, equal_nan=True)
    upstream = torch.ones_like(expected)
    (computed_grad,), (expected_grad,) = (torch.autograd.grad(y, x, upstream) for y in (computed, expected))
    torch.testing.assert_close(computed_grad[:, :5], expected_grad[:, :5], atol=1e-5, rtol=1e-5, equal_nan=True)


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> None:
        return None


def test_a_missing_upstream_gradient_gives_no_gradient(name: str, device: torch.device) -> None:
    x = randn(4, 8, device=device).requires_grad_()
    _NoGradient.apply(CASES[name][0](x)).sum().backward()
    assert x.grad is None


def test_backward_twice_gives_the_same_and_changes_no_input(name: str, device: torch.device) -> None:
    x = randn(40, 96, device=device).requires_grad_()
    before = x.detach().clone()
    y = CASES[name][0](x)
    upstream = torch.randn_like(y)
    (first,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(first, second)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_keeps_the_input_dtype_under_autocast(name: str, dtype: torch.dtype, device: torch.device) -> None:
    x = torch.randn(4, 64, device=device).to(dtype).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        computed = CASES[name][0](x)
        (grad,) = torch.autograd.grad(computed.float().sum(), x)
    assert computed.dtype == grad.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(computed.double(), torch_reference(name, x.double()), atol=tolerance, rtol=tolerance)


def test_the_op_and_its_gradient_pass_opcheck(name: str, device: torch.device) -> None:
    op, backward_op = (getattr(torch.ops.cram, full).default for full in (name, f"{name}_backward"))
    x = randn(2, 3, 8, device=device)
    torch.library.opcheck(op, (x.clone().requires_grad_(),))
    torch.library.opcheck(op, (x.transpose(0, 1),))
    torch.library.opcheck(backward_op, (randn(2, 3, 4, device=device), x))


@pytest.mark.no_launch
@pytest.mark.parametrize("shape", [(2, 3), (1,), ()])
def test_what_cannot_be_halved_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="needs a last dimension that is even"):
        CASES[name][0](torch.zeros(shape))
