"""rope is compared with the rotary formula of transformers, written out, in float64."""

import pytest
import torch
from torch import Tensor

import cram_kernels as ck
from cram_kernels._launch import record_launches
from cram_kernels.rope import launch_rope

# The interpreter truncates fp32 to bf16 where hardware rounds, so bf16 is allowed a whole unit in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]


def angles(*shape: int, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    angle = torch.rand(*shape, dtype=torch.float64, device=device) * 6
    return angle.cos().to(dtype), angle.sin().to(dtype)


def torch_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (torch.cat([part, part], -1).unsqueeze(-2) for part in (cos, sin))
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def check(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Compare values and gradients of both with float64."""
    inputs = [part.detach().requires_grad_() for part in (q, k)]
    wide_inputs = [part.detach().double().requires_grad_() for part in (q, k)]
    computed = ck.rope(*inputs, cos, sin)
    expected = [torch_reference(part, cos.double(), sin.double()) for part in wide_inputs]
    upstream = [torch.randn(part.shape, device=q.device).to(part.dtype) for part in inputs]
    computed_grad = torch.autograd.grad(computed, inputs, upstream)
    expected_grad = torch.autograd.grad(expected, wide_inputs, [part.double() for part in upstream])
    for original, left, right in zip(
        (q, k, q, k), (*computed, *computed_grad), (*expected, *expected_grad), strict=True
    ):
        assert (left.dtype, left.shape) == (original.dtype, original.shape)
        tolerance = TOLERANCE[original.dtype]
        torch.testing.assert_close(left.double(), right, atol=tolerance, rtol=tolerance)


def randn(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (12, 3), (5, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_values_and_gradients(heads: tuple[int, int], dtype: torch.dtype, device: torch.device, backend: str) -> None:
    rows, tokens = (33, 515) if backend == "gpu" else (2, 35)
    q, k = (randn(rows, tokens, count, 64, dtype=dtype, device=device) for count in heads)
    check(q, k, *angles(rows, tokens, 32, device=device))


@pytest.mark.no_launch
def test_float64_takes_the_reference(device: torch.device) -> None:
    q, k = (torch.randn(2, 5, heads, 6, dtype=torch.float64, device=device) for heads in (4, 2))
    check(q, k, *angles(2, 5, 3, device=device, dtype=torch.float64))
    qkv = torch.randn(2, 4, 3, 2, 4, dtype=torch.float64, device=device, requires_grad=True)
    turned = angles(2, 4, 2, device=device, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ck.rope(*x.unbind(2)[:2], *turned), (qkv,))


@pytest.mark.parametrize("head_dim", [2, 4, 6, 34, 80, 1000, 2050])
def test_every_head_dim(head_dim: int, device: torch.device) -> None:
    q, k = (randn(2, 3, heads, head_dim, device=device) for heads in (2, 1))
    check(q, k, *angles(2, 3, head_dim // 2, device=device))


@pytest.mark.no_launch
def test_a_head_too_wide_to_be_held_takes_the_reference(device: torch.device) -> None:
    q = randn(1, 2, 1, 16_386, device=device)
    check(q, q, *angles(2, 8193, device=device))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_leading_dimensions(lead: tuple[int, ...], device: torch.device) -> None:
    q, k = (randn(*lead, 5, heads, 8, device=device) for heads in (2, 1))
    for shape in {lead, (1,) * len(lead), (), lead[-1:]}:
        check(q, k, *angles(*shape, 5, 4, device=device))
    check(q, k, *angles(1, 4, device=device))
    check(q, k, *(part.expand(*lead, 5, 4) for part in angles(5, 4, device=device)))


@pytest.mark.no_launch
@pytest.mark.parametrize("shape", [(0, 5, 2, 8), (2, 0, 2, 8), (2, 5, 0, 8), (2, 5, 2, 0)])
def test_empty_inputs_give_empty_results(shape: tuple[int, ...], device: torch.device) -> None:
    q, k = (randn(*shape, device=device).requires_grad_() for _ in range(2))
    computed = ck.rope(q, k, *angles(*shape[:2], shape[3] // 2, device=device))
    grads = torch.autograd.grad(computed, (q, k), [torch.ones_like(part) for part in computed])
    assert all(part.shape == shape for part in (*computed, *grads))


def strided(kind: str, heads: int, device: torch.device) -> Tensor:
    qkv = torch.randn(2, 5, 3, heads, 8, device=device)
    return {
        "a fused projection's": qkv[:, :, 1],
        "heads before tokens": torch.randn(2, heads, 5, 8, device=device).transpose(1, 2),
        "part of a head": torch.randn(2, 5, heads, 20, device=device)[..., 3:11],
        "columns apart": torch.randn(2, 5, heads, 16, device=device)[..., ::2],
        "expanded heads": torch.randn(2, 5, 1, 8, device=device).expand(2, 5, heads, 8),
        "expanded rows": torch.randn(1, 5, heads, 8, device=device).expand(2, 5, heads, 8),
        "unaligned": torch.randn(2 * 5 * heads * 8 + 1, device=device)[1:].view(2, 5, heads, 8),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "a fused projection's",
        "heads before tokens",
        "part of a head",
        "columns apart",
        "expanded heads",
        "expanded rows",
        "unaligned",
    ],
)
def test_any_strides(kind: str, device: torch.device) -> None:
    check(strided(kind, 6, device), strided(kind, 2, device), *angles(2, 5, 4, device=device))


def test_angles_of_any_strides(device: torch.device) -> None:
    q, k = (randn(2, 5, heads, 8, device=device) for heads in (2, 1))
    cos, sin = angles(5, 2, 8, device=device)
    check(q, k, cos.transpose(0, 1)[..., :4], sin.transpose(0, 1)[..., 4:])
    check(q, k, cos.transpose(0, 1)[..., ::2], sin.transpose(0, 1)[..., :4])
    check(q, k, *(part.transpose(0, 1)[..., :1].expand(2, 5, 4) for part in (cos, sin)))


@pytest.mark.no_launch
def test_views_of_a_fused_projection_are_read_in_place(device: torch.device) -> None:
    q, k, v = randn(2, 5, 3, 6, 8, device=device).unbind(2)
    cos, sin = angles(5, 4, device=device)
    upstream = v.transpose(1, 2).contiguous().transpose(1, 2)
    with record_launches() as recorded:
        launch_rope(q, k, cos, sin, 1)
        launch_rope(None, upstream, cos, sin, -1)
    forward, backward = (launch.arguments for launch in recorded)
    for left, right in zip((*forward[:4], backward[1]), (q, k, cos, sin, upstream), strict=True):
        assert left.data_ptr() == right.data_ptr()


def test_queries_and_keys_may_differ_in_dtype(device: torch.device) -> None:
    q, k = randn(2, 5, 2, 8, dtype=torch.bfloat16, device=device), randn(2, 5, 1, 8, device=device)
    check(q, k, *angles(5, 4, device=device))
    check(k, q, *angles(5, 4, device=device, dtype=torch.bfloat16))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("used", ["both", "one"])
def test_a_gradient_for_one_alone(which: int, used: str, device: torch.device) -> None:
    parts = [randn(2, 5, heads, 8, device=device) for heads in (4, 2)]
    parts[which].requires_grad_()
    cos, sin = angles(5, 4, device=device)
    computed = ck.rope(*parts, cos, sin)
    upstream = torch.randn_like(computed[which])
    outputs, upstream_values = (
        (computed, (upstream, torch.ones_like(computed[1]))) if used == "both" else ((computed[which],), (upstream,))
    )
    if used == "both" and which == 1:
        upstream_values = (torch.ones_like(computed[0]), upstream)
    (computed_grad,) = torch.autograd.grad(outputs, parts[which], upstream_values)
    (expected_grad,) = torch.autograd.grad(torch_reference(parts[which], cos, sin), parts[which], upstream)
    torch.testing.assert_close(computed_grad, expected_grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_an_output_left_unused_gives_no_gradient(which: int, device: torch.device) -> None:
    parts = [randn(2, 5, heads, 8, device=device).requires_grad_() for heads in (4, 2)]
    cos, sin = angles(5, 4, device=device)
    ck.rope(*parts, cos, sin)[which].sum().backward()
    assert parts[1 - which].grad is None
    (expected_grad,) = torch.autograd.grad(torch_reference(parts[which], cos, sin).sum(), parts[which])
    torch.testing.assert_close(parts[which].grad, expected_grad, atol=1e-5, rtol=1e-5)


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> None:
        return None


def test_a_missing_upstream_gradient_gives_no_gradient(device: torch.device) -> None:
    q, k = (randn(2, 5, 2, 8, device=device).requires_grad_() for _ in range(2))
    rotated = ck.rope(q, k, *angles(5, 4, device=device))
    sum(_NoGradient.apply(part).sum() for part in rotated).backward()
    assert q.grad is None and k.grad is None


def test_backward_twice_gives_the_same_and_changes_no_input(device: torch.device) -> None:
    q, k = (randn(2, 5, heads, 8, device=device).requires_grad_() for heads in (4, 2))
    before = q.detach().clone()
    computed = ck.rope(q, k, *angles(5, 4, device=device))
    upstream = [torch.randn_like(part) for part in computed]
    first = torch.autograd.grad(computed, (q, k), upstream, retain_graph=True)
    second = torch.autograd.grad(computed, (q, k), upstream)
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
    assert torch.equal(q, before)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_keeps_the_input_dtype_and_computes_wide_under_autocast(dtype: torch.dtype, device: torch.device) -> None:
    q = torch.randn(2, 4, 2, 8, device=device).to(dtype).requires_grad_()
    cos, sin = angles(2, 4, 4, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        computed, _ = ck.rope(q, q, cos, sin)
        (grad,) = torch.autograd.grad(computed.float().sum(), q)
    assert computed.dtype == grad.dtype == dtype
    ulp = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]
    torch.testing.assert_close(
        computed.double(), torch_reference(q.double(), cos.double(), sin.double()), atol=1e-6, rtol=ulp
    )


def test_values_that_are_not_finite_stay_in_their_pair(device: torch.device) -> None:
    q = randn(1, 2, 2, 8, device=device)
    q[0, 1, 0, 2], q[0, 0, 1, 5] = float("nan"), float("inf")
    cos, sin = angles(2, 4, device=device)
    torch.testing.assert_close(ck.rope(q, q, cos, sin)[0], torch_reference(q, cos, sin), equal_nan=True)


def test_the_op_and_its_gradient_pass_opcheck(device: torch.device) -> None:
    q, k, _ = randn(2, 5, 3, 2, 8, device=device).unbind(2)
    cos, sin = angles(5, 4, device=device)
    op, backward_op = torch.ops.cram.rope.default, torch.ops.cram.rope_backward.default
    torch.library.opcheck(op, (q.clone().requires_grad_(), k.clone().requires_grad_(), cos, sin))
    torch.library.opcheck(op, (q, k[:, :, :1], cos, sin))
    for grads in ((q, k), (None, k), (q, None)):
        torch.library.opcheck(backward_op, (*grads, cos, sin))


@pytest.mark.no_launch
def test_shapes_that_do_not_fit_are_refused() -> None:
    q, cos = torch.zeros(2, 3, 4, 6), torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"cos \(3, 2\) and sin \(3, 2\) do not fit head_dim 6"):
        ck.rope(q, q, cos[:, :2], cos[:, :2])
    with pytest.raises(ValueError, match=r"cos \(3, 3\) and sin \(1, 3\) do not fit"):
        ck.rope(q, q, cos, cos[:1])
    with pytest.raises(ValueError, match="do not fit head_dim 5"):
        ck.rope(q[..., :5], q[..., :5], cos, cos)
    for shape in ((4, 3), (3, 3, 3), (1, 2, 3, 3)):
        with pytest.raises(ValueError, match=r"does not broadcast to the leading dimensions and tokens of q, \(2, 3\)"):
            ck.rope(q, q, torch.zeros(shape), torch.zeros(shape))
    for k in (q[:1], q[..., :4], q[0], q[:, :2]):
        with pytest.raises(ValueError, match=r"does not fit q \(2, 3, 4, 6\)"):
            ck.rope(q, k, cos, cos)
    with pytest.raises(ValueError, match="does not fit q"):
        ck.rope(q[0, 0], q[0, 0], cos, cos)
