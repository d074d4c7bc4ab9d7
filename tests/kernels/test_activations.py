"""geglu and swiglu against torch's activations in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck

# NumPy, which plays the GPU in the interpreter, warns of what a GPU passes over.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|All-NaN slice) encountered:RuntimeWarning")
CASES = {"geglu": (ck.geglu, F.gelu), "swiglu": (ck.swiglu, F.silu)}
# The interpreter cuts fp32 to bf16 where hardware rounds, so bf16 gets a whole unit in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(params=list(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def yardstick(name: str, x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return CASES[name][1](first) * second


def check(name: str, x: Tensor) -> None:
    """Values and gradients against float64, within the dtype's tolerance of the largest entry."""
    mine = x.detach().requires_grad_()
    theirs = x.detach().double().requires_grad_()
    tolerance = TOLERANCE[x.dtype]
    ours, wanted = CASES[name][0](mine), yardstick(name, theirs)
    assert (ours.dtype, ours.shape) == (x.dtype, wanted.shape)
    upstream = torch.randn(wanted.shape, device=x.device).to(x.dtype)
    (found,) = torch.autograd.grad(ours, mine, upstream)
    (right,) = torch.autograd.grad(wanted, theirs, upstream.double())
    for one, other in ((ours, wanted), (found, right)):
        torch.testing.assert_close(
            one.double(), other, atol=tolerance * max(1.0, float(other.detach().abs().max())), rtol=tolerance
        )


def randn(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_values_and_gradients(name: str, dtype: torch.dtype, device: torch.device, home: str) -> None:
    rows, width = (4099, 2 * 3072) if home == "gpu" else (21, 2 * 300)
    check(name, randn(rows, width, dtype=dtype, device=device))


@pytest.mark.no_launch
def test_float64_is_served_by_the_reference(name: str, device: torch.device) -> None:
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
        (found,) = torch.autograd.grad(CASES[name][0](x), x, upstream)
        (right,) = torch.autograd.grad(yardstick(name, x), x, upstream)
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)


def test_large_and_not_finite_values_are_torchs(name: str, device: torch.device) -> None:
    first = torch.tensor([1e4, -1e4, 20.0, -20.0, float("nan"), float("inf"), -float("inf"), 0.0], device=device)
    x = torch.stack([torch.cat([first, torch.full((8,), value, device=device)]) for value in (2.0, float("nan"))])
    x.requires_grad_()
    ours, wanted = CASES[name][0](x), yardstick(name, x)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5, equal_nan=True)
    upstream = torch.ones_like(wanted)
    (found,), (right,) = (torch.autograd.grad(y, x, upstream) for y in (ours, wanted))
    torch.testing.assert_close(found[:, :5], right[:, :5], atol=1e-5, rtol=1e-5, equal_nan=True)


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> None:
        return None


def test_no_gradient_from_above_is_none_below(name: str, device: torch.device) -> None:
    x = randn(4, 8, device=device).requires_grad_()
    _NoGradient.apply(CASES[name][0](x)).sum().backward()
    assert x.grad is None


def test_backward_twice_gives_the_same_and_harms_nothing(name: str, device: torch.device) -> None:
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
        ours = CASES[name][0](x)
        (grad,) = torch.autograd.grad(ours.float().sum(), x)
    assert ours.dtype == grad.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(ours.double(), yardstick(name, x.double()), atol=tolerance, rtol=tolerance)


def test_the_op_and_its_gradient_pass_opcheck(name: str, device: torch.device) -> None:
    op, backward_op = (getattr(torch.ops.cram, full).default for full in (name, f"{name}_backward"))
    x = randn(2, 3, 8, device=device)
    torch.library.opcheck(op, (x.clone().requires_grad_(),))
    torch.library.opcheck(op, (x.transpose(0, 1),))
    active = op(x)[1]
    torch.library.opcheck(backward_op, (randn(2, 3, 4, device=device), x, active))


@pytest.mark.no_launch
@pytest.mark.parametrize("shape", [(2, 3), (1,), ()])
def test_what_cannot_be_halved_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="needs a last dimension that is even"):
        CASES[name][0](torch.zeros(shape))


HUGE_STRIDE = 2**30 + 16


def test_rows_far_apart_do_not_overflow(home: str, run_apart: Callable[[str], None]) -> None:
    """Offsets beyond 2^31 elements, in a process of its own: with 32 bits it would end by a signal."""
    where = "cuda" if home == "gpu" else "cpu"
    code = f"""
import torch, cram_kernels as ck
base = torch.empty(2 * {HUGE_STRIDE} + 64, dtype=torch.bfloat16, device="{where}")
x, upstream = (base[at:].as_strided((3, width), ({HUGE_STRIDE}, 1)) for at, width in ((0, 16), (32, 8)))
values, over = torch.randn(3, 16).bfloat16(), torch.randn(3, 8).bfloat16()
x.copy_(values)
upstream.copy_(over)
x.requires_grad_()
for op, act in ((ck.geglu, torch.nn.functional.gelu), (ck.swiglu, torch.nn.functional.silu)):
    y = op(x)
    grad, = torch.autograd.grad(y, x, upstream)
    theirs = values.double().requires_grad_()
    first, second = theirs.chunk(2, -1)
    wanted = act(first) * second
    right, = torch.autograd.grad(wanted, theirs, over.double())
    torch.testing.assert_close(y.cpu().double(), wanted, atol=4e-2, rtol=2e-2)
    torch.testing.assert_close(grad.cpu().double(), right, atol=4e-2, rtol=4e-2)
"""
    run_apart(code)
