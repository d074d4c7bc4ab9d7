"""softmax is compared with torch\'s in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import cram_kernels as ck
from cram_kernels._launch import record_launches
from cram_kernels._softmax_kernels import launch_softmax_forward

# NumPy computes in the interpreter. It warns of every NaN, also in rows beyond the last one.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow|All-NaN slice) encountered:RuntimeWarning")
# The interpreter truncates fp32 to bf16 where hardware rounds, so bf16 is allowed a whole unit in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]
INFINITY = float("inf")


def torch_reference(x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        return (x * scale).softmax(-1)
    row_has_kept = mask.any(-1, keepdim=True)
    return (x * scale).masked_fill(~mask & row_has_kept, -INFINITY).softmax(-1).masked_fill(~row_has_kept, 0.0)


def check(x: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> None:
    """Compare values and gradients with float64, relative to the largest entry of the row."""
    inputs = x.detach().requires_grad_()
    wide_inputs = x.detach().double().requires_grad_()
    tolerance = TOLERANCE[x.dtype]
    computed, expected = ck.softmax(inputs, scale=scale, mask=mask), torch_reference(wide_inputs, scale, mask)
    assert (computed.dtype, computed.shape) == (x.dtype, x.shape)
    largest_share = float(expected.detach().max())
    torch.testing.assert_close(computed.double(), expected, atol=tolerance * largest_share, rtol=tolerance)
    upstream = torch.randn(x.shape, device=x.device).to(x.dtype)
    (computed_grad,) = torch.autograd.grad(computed, inputs, upstream)
    (expected_grad,) = torch.autograd.grad(expected, wide_inputs, upstream.double())
    # p was rounded, so the gradient has the same relative error as the largest term of the sum over the row.
    largest = abs(scale) * largest_share * float(upstream.abs().max())
    torch.testing.assert_close(
        computed_grad.double(), expected_grad, atol=tolerance * max(largest, 1e-6), rtol=tolerance
    )


def randn(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def make_mask(*shape: int, device: torch.device) -> Tensor:
    """Return a mask that keeps most positions, and at least one of each row."""
    mask = torch.rand(*shape, device=device) < 0.7
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("scale", [1.0, 0.25, -3.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_values_and_gradients(
    scale: float, masked: bool, dtype: torch.dtype, device: torch.device, backend: str
) -> None:
    rows = 4099 if backend == "gpu" else 21
    x = randn(rows, 64, dtype=dtype, device=device)
    check(x, scale, make_mask(rows, 64, device=device) if masked else None)


@pytest.mark.no_launch
def test_float64_takes_the_reference(device: torch.device) -> None:
    check(torch.randn(3, 8, dtype=torch.float64, device=device), 0.5, make_mask(3, 8, device=device))


@pytest.mark.parametrize("width", [1, 2, 3, 17, 128, 1000, 4097, 16_385, 32_768, 65_537])
@pytest.mark.parametrize("masked", [False, True])
def test_every_width(width: int, masked: bool, device: torch.device) -> None:
    check(randn(3, width, device=device), 2.0, make_mask(3, width, device=device) if masked else None)


@pytest.mark.parametrize("dtype", HALF)
def test_a_wide_row_in_half_precision(dtype: torch.dtype, device: torch.device) -> None:
    check(4 * randn(2, 40_000, dtype=dtype, device=device), 0.5)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 5, 8), (2, 3, 5, 8), (2, 1, 3, 2, 8)])
def test_one_to_five_dimensions(shape: tuple[int, ...], device: torch.device) -> None:
    check(randn(*shape, device=device))
    check(randn(*shape, device=device), 0.5, make_mask(*shape, device=device))


def test_a_scalar_gives_one_as_in_torch(device: torch.device) -> None:
    assert ck.softmax(torch.tensor(3.0, device=device)).item() == 1.0


@pytest.mark.no_launch
@pytest.mark.parametrize("shape", [(0, 8), (3, 0, 8), (3, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_no_rows_and_no_columns(shape: tuple[int, ...], masked: bool, device: torch.device) -> None:
    x = randn(*shape, device=device).requires_grad_()
    y = ck.softmax(x, mask=torch.ones(shape, dtype=torch.bool, device=device) if masked else None)
    y.sum().backward()
    assert x.grad is not None and x.grad.shape == y.shape == x.shape


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 5, 8), (2, 1, 1, 8), (2, 1, 5, 8), (1, 3, 1, 8), (5, 8), (8,), (), (2, 3, 5, 1), (2, 1, 5, 1), (5, 1)],
)
def test_every_broadcast_of_a_mask(shape: tuple[int, ...], device: torch.device, backend: str) -> None:
    rows, heads, queries, width = (7, 12, 37, 300) if backend == "gpu" else (2, 3, 5, 8)
    sizes = {2: rows, 3: heads, 5: queries, 8: width}
    mask = torch.rand([sizes.get(size, 1) for size in shape], device=device) < 0.6
    check(randn(rows, heads, queries, width, device=device), 0.5, mask)


def test_masks_of_any_strides(device: torch.device) -> None:
    x = randn(3, 4, 6, device=device)
    base = make_mask(8, 12, 6, device=device)
    for mask in (base[:3, :4], base[::3, ::3], base.permute(2, 1, 0)[:3, :4, :6], base[0, :4].t()[:4, :1]):
        check(x, mask=mask)
    check(x, mask=make_mask(3, 1, 6, device=device).expand(3, 4, 6))
    check(x, mask=make_mask(3, 4, 1, device=device).expand(3, 4, 6))
    check(x, mask=make_mask(3, 4, 12, device=device)[..., ::2])


def test_more_broadcast_dimensions_than_the_kernel_takes(device: torch.device) -> None:
    check(randn(2, 3, 2, 2, 4, device=device), mask=make_mask(2, 1, 2, 1, 4, device=device))
    check(randn(2, 2, 3, 2, 2, 4, device=device), mask=make_mask(2, 1, 3, 1, 2, 4, device=device))


@pytest.mark.no_launch
def test_an_attention_mask_is_read_in_place(device: torch.device) -> None:
    x = randn(2, 3, 5, 8, device=device)
    for shape in ((2, 1, 5, 8), (2, 1, 1, 8), (5, 8)):
        mask = make_mask(*shape, device=device)
        with record_launches() as recorded:
            launch_softmax_forward(x, 1.0, mask)
        assert recorded[0].arguments[1].data_ptr() == mask.data_ptr()


@pytest.mark.parametrize("width", [5, 40_000])
def test_a_row_that_is_masked_everywhere_is_zero_with_zero_gradient(width: int, device: torch.device) -> None:
    x = randn(3, width, device=device)
    x[1, 0], x[2, 1] = float("nan"), -INFINITY  # hidden by the mask
    x.requires_grad_()
    mask = torch.ones(3, width, dtype=torch.bool, device=device)
    mask[:2] = False
    mask[2, 1] = False
    out = ck.softmax(x, mask=mask)
    assert not out[:2].any()
    (grad,) = torch.autograd.grad(out, x, torch.randn_like(out))
    assert not grad[:2].any()
    assert grad[2].any() and not grad.isnan().any()


@pytest.mark.parametrize("width", [5, 40_000])
def test_values_that_are_not_finite_give_the_results_of_torch(width: int, device: torch.device) -> None:
    x = randn(7, width, device=device)
    x[0] = -INFINITY
    x[1, ::2] = -INFINITY
    x[2, 3] = float("nan")
    x[3, 2] = INFINITY
    x[4, :4] = torch.tensor([float("nan"), INFINITY, -INFINITY, 1.0])
    x[5, : width - 1] = -INFINITY
    x[6] = float("nan")
    computed = ck.softmax(x)
    torch.testing.assert_close(computed, x.softmax(-1), equal_nan=True, atol=1e-6, rtol=1e-4)
    assert computed[[0, 2, 3, 4, 6]].isnan().all() and not computed[[1, 5]].isnan().any()
    mask = torch.ones(width, dtype=torch.bool, device=device)
    mask[1] = False
    torch.testing.assert_close(
        ck.softmax(x, mask=mask), x.masked_fill(~mask, -INFINITY).softmax(-1), equal_nan=True, atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("offset", [1e4, -1e4])
@pytest.mark.parametrize("width", [64, 40_000])
def test_a_large_offset_of_a_row_loses_no_precision(offset: float, width: int, device: torch.device) -> None:
    check(randn(3, width, device=device) + offset)


def test_any_strides(strided: Callable[[], Tensor], device: torch.device) -> None:
    x = strided()
    check(x)
    check(x, 0.5, make_mask(x.shape[0], 1, 16, device=device))


def test_an_upstream_gradient_of_any_strides(device: torch.device) -> None:
    x = randn(5, 16, device=device).requires_grad_()
    for upstream in (torch.ones((), device=device).expand(5, 16), randn(16, 5, device=device).t()):
        (computed_grad,) = torch.autograd.grad(ck.softmax(x), x, upstream)
        (expected_grad,) = torch.autograd.grad(x.softmax(-1), x, upstream)
        torch.testing.assert_close(computed_grad, expected_grad, atol=1e-6, rtol=1e-5)


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> None:
        return None


def test_a_missing_upstream_gradient_gives_no_gradient(device: torch.device) -> None:
    x = randn(4, 8, device=device).requires_grad_()
    _NoGradient.apply(ck.softmax(x)).sum().backward()
    assert x.grad is None


def test_a_tensor_that_is_used_twice_is_not_changed(device: torch.device) -> None:
    x = randn(4, 16, device=device).requires_grad_()
    before = x.detach().clone()
    left, right = ck.softmax(x), ck.softmax(x, scale=0.5)
    ((left + 3 * right) * x).sum().backward()
    wide_inputs = before.double().requires_grad_()
    ((wide_inputs.softmax(-1) + 3 * (wide_inputs * 0.5).softmax(-1)) * wide_inputs).sum().backward()
    assert x.grad is not None and wide_inputs.grad is not None and torch.equal(x.detach(), before)
    torch.testing.assert_close(x.grad.double(), wide_inputs.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [96, 40_000])
def test_backward_twice_gives_the_same(width: int, device: torch.device) -> None:
    x = randn(5, width, device=device).requires_grad_()
    y = ck.softmax(x, scale=0.3)
    upstream = torch.randn_like(y)
    (first,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(first, second)
    assert torch.equal(y, ck.softmax(x, scale=0.3))


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_keeps_the_input_dtype_under_autocast(dtype: torch.dtype, scale: float, device: torch.device) -> None:
    x = torch.randn(4, 64, device=device).to(dtype).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        computed = ck.softmax(x, scale=scale)
        (grad,) = torch.autograd.grad(computed.float().pow(2).sum(), x)
    assert computed.dtype == grad.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(computed.double(), (x.double() * scale).softmax(-1), atol=tolerance / 8, rtol=tolerance)


def test_a_scaled_score_is_not_rounded(device: torch.device) -> None:
    x = (10 * torch.randn(8, 64, device=device)).to(torch.bfloat16)
    expected = (x.double() * 0.3).softmax(-1)
    torch.testing.assert_close(ck.softmax(x, scale=0.3).double(), expected, atol=1e-6, rtol=2**-7)


def test_the_op_and_its_gradient_pass_opcheck(device: torch.device) -> None:
    x, mask = randn(2, 3, 8, device=device), make_mask(2, 1, 8, device=device)
    op, backward_op = torch.ops.cram.softmax.default, torch.ops.cram.softmax_backward.default
    torch.library.opcheck(op, (x.clone().requires_grad_(), 0.5, mask))
    torch.library.opcheck(op, (x.transpose(0, 1), 1.0, None))
    torch.library.opcheck(backward_op, (x, x.softmax(-1), 0.5))


@pytest.mark.no_launch
def test_masks_that_do_not_fit_are_refused(device: torch.device) -> None:
    x = randn(2, 3, 8, device=device)
    with pytest.raises(TypeError, match=r"must be bool, True = keep, not torch\.float32"):
        ck.softmax(x, mask=torch.zeros(2, 3, 8, device=device))
    for shape in ((2, 8), (7,), (4, 2, 3, 8), (1, 2, 3, 8)):
        with pytest.raises(ValueError, match=r"does not broadcast to x \(2, 3, 8\)"):
            ck.softmax(x, mask=torch.ones(shape, dtype=torch.bool, device=device))
