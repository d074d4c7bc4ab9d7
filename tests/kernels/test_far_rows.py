"""Offsets beyond 2^31 elements, for every op.

Each test runs code in another process. With 32-bit offsets that process would be ended by a signal.
"""

from collections.abc import Callable

import pytest

HUGE_STRIDE = 2**30 + 16  # elements from one row to the next


@pytest.fixture
def device_type(backend: str) -> str:
    """`cuda` on a GPU, else `cpu`."""
    return "cuda" if backend == "gpu" else "cpu"


def test_layer_norm_of_far_rows(device_type: str, run_in_subprocess: Callable[[str], None]) -> None:
    code = f"""
import torch, cram_kernels as ck
x = torch.empty(3 * {HUGE_STRIDE}, dtype=torch.bfloat16, device="{device_type}").as_strided((3, 16), ({HUGE_STRIDE}, 1))
values = torch.randn(3, 16).to(torch.bfloat16)
x = x.copy_(values).requires_grad_()
y = ck.layer_norm(x)
y.backward(torch.ones_like(y))
assert x.grad.abs().max() < 0.1
y = y.detach()
expected = torch.nn.functional.layer_norm(values.float(), (16,))
torch.testing.assert_close(y.cpu().float(), expected, atol=2e-2, rtol=2e-2)
"""
    run_in_subprocess(code)


@pytest.mark.parametrize("width", [16, 40_000])
def test_softmax_of_far_rows(width: int, device_type: str, run_in_subprocess: Callable[[str], None]) -> None:
    code = f"""
import torch, cram_kernels as ck
def place_far_apart(offset, dtype):
    base = torch.empty(2 * {HUGE_STRIDE} + offset + {width}, dtype=dtype, device="{device_type}")
    return base[offset:].as_strided((3, {width}), ({HUGE_STRIDE}, 1))
x, upstream = (place_far_apart(offset, torch.bfloat16) for offset in (0, 16))
mask = place_far_apart(0, torch.bool)
values, upstream_values, keep = torch.randn(3, {width}), torch.randn(3, {width}), torch.rand(3, {width}) < 0.7
for huge, part in ((x, values), (upstream, upstream_values), (mask, keep)):
    huge.copy_(part)
x.requires_grad_()
y = ck.softmax(x, mask=mask)
grad, = torch.autograd.grad(y, x, upstream)
wide_inputs = values.bfloat16().double().requires_grad_()
expected = wide_inputs.masked_fill(~keep, -torch.inf).softmax(-1)
expected_grad, = torch.autograd.grad(expected, wide_inputs, upstream_values.bfloat16().double())
torch.testing.assert_close(y.cpu().double(), expected, atol=2e-3, rtol=2e-2)
pairs = values[:, None].expand(3, 2, {width}).contiguous().to(x.device)  # two rows share a row of the mask
shared = values.double().masked_fill(~keep, -torch.inf).softmax(-1)[:, None].expand(3, 2, {width})
torch.testing.assert_close(ck.softmax(pairs, mask=mask[:, None]).cpu().double(), shared, atol=1e-5, rtol=1e-4)
torch.testing.assert_close(grad.cpu().double(), expected_grad, atol=2e-2 * float(expected_grad.abs().max()), rtol=4e-2)
"""
    run_in_subprocess(code)


def test_cross_entropy_of_far_rows(device_type: str, run_in_subprocess: Callable[[str], None]) -> None:
    code = f"""
import torch, cram_kernels as ck
x = torch.empty(3 * {HUGE_STRIDE}, dtype=torch.bfloat16, device="{device_type}").as_strided((3, 16), ({HUGE_STRIDE}, 1))
values = torch.randn(3, 16, device="{device_type}").to(torch.bfloat16).requires_grad_()
x = x.copy_(values.detach()).requires_grad_()
target = torch.tensor([3, 0, 15], device="{device_type}")
computed, expected = ck.cross_entropy(x, target), torch.nn.functional.cross_entropy(values.double(), target)
torch.testing.assert_close(computed.double(), expected, atol=1e-5, rtol=1e-5)
computed_grad, expected_grad = torch.autograd.grad(computed, x)[0], torch.autograd.grad(expected, values)[0]
torch.testing.assert_close(computed_grad, expected_grad, atol=1e-3, rtol=2e-2)
"""
    run_in_subprocess(code)


def test_linear_cross_entropy_of_a_chunk_of_far_rows(
    device_type: str, run_in_subprocess: Callable[[str], None]
) -> None:
    code = f"""
import torch
from cram_kernels._cross_entropy_kernels import LossTerms
from cram_kernels._linear_cross_entropy_chunks import consume_logits, use_triton
x = torch.empty(3 * {HUGE_STRIDE}, dtype=torch.bfloat16, device="{device_type}").as_strided((3, 16), ({HUGE_STRIDE}, 1))
values = torch.randn(3, 16, device="{device_type}").to(torch.bfloat16)
target, wide_logits = torch.tensor([3, 0, 15], device="{device_type}"), values.double().requires_grad_()
x.copy_(values)
losses = consume_logits(x, target, LossTerms(-100, 0.0, 0.0), True, use_triton(x))
expected_losses = torch.nn.functional.cross_entropy(wide_logits, target, reduction="none")
torch.testing.assert_close(losses.double(), expected_losses, atol=1e-5, rtol=1e-5)
expected_losses.sum().backward()
torch.testing.assert_close(x.double(), wide_logits.grad, atol=1e-2, rtol=1e-2)
"""
    run_in_subprocess(code)


def test_activations_of_far_rows(device_type: str, run_in_subprocess: Callable[[str], None]) -> None:
    code = f"""
import torch, cram_kernels as ck
base = torch.empty(2 * {HUGE_STRIDE} + 64, dtype=torch.bfloat16, device="{device_type}")
x, upstream = (base[at:].as_strided((3, width), ({HUGE_STRIDE}, 1)) for at, width in ((0, 16), (32, 8)))
values, upstream_values = torch.randn(3, 16).bfloat16(), torch.randn(3, 8).bfloat16()
x.copy_(values)
upstream.copy_(upstream_values)
x.requires_grad_()
for op, act in ((ck.geglu, torch.nn.functional.gelu), (ck.swiglu, torch.nn.functional.silu)):
    y = op(x)
    grad, = torch.autograd.grad(y, x, upstream)
    wide_inputs = values.double().requires_grad_()
    first, second = wide_inputs.chunk(2, -1)
    expected = act(first) * second
    expected_grad, = torch.autograd.grad(expected, wide_inputs, upstream_values.double())
    torch.testing.assert_close(y.cpu().double(), expected, atol=4e-2, rtol=2e-2)
    torch.testing.assert_close(grad.cpu().double(), expected_grad, atol=4e-2, rtol=4e-2)
"""
    run_in_subprocess(code)


def test_rope_of_far_rows_tokens_and_heads(device_type: str, run_in_subprocess: Callable[[str], None]) -> None:
    code = f"""
import torch, cram_kernels as ck
base = torch.empty(2 * {HUGE_STRIDE} + 512, dtype=torch.bfloat16, device="{device_type}")
def rotate(x, cos, sin):
    first, second = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
for far in range(3):
    shape, strides = [2, 2, 2, 8], [64, 32, 16, 1]
    shape[far], strides[far] = 3, {HUGE_STRIDE}
    q, upstream = (base[at:].as_strided(shape, strides) for at in (0, 256))
    values, upstream_values = (torch.randn(shape).bfloat16() for _ in range(2))
    q.copy_(values)
    upstream.copy_(upstream_values)
    angle = torch.rand(shape[1], 4) * 6
    cos, sin = angle.cos(), angle.sin()
    q = q.detach().requires_grad_()
    rotated = ck.rope(q, q, cos.to("{device_type}"), sin.to("{device_type}"))
    grad, = torch.autograd.grad(rotated[0], q, upstream)
    expected = rotate(values, cos, sin)
    pairs = [(rotated[0], expected), (rotated[1], expected), (grad, rotate(upstream_values, cos, -sin))]
    for left, right in pairs:
        torch.testing.assert_close(left.cpu().float(), right, atol=3e-2, rtol=3e-2)
"""
    run_in_subprocess(code)
