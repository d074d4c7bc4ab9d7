"""rope against the definition by rotate-half."""

import pytest
import torch
from torch import Tensor

import cram_kernels as ck


def angles(*shape: int) -> tuple[Tensor, Tensor]:
    drawn = torch.rand(*shape, dtype=torch.float64) * 6
    return drawn.cos(), drawn.sin()


def expected(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = torch.cat([cos, cos], -1)[..., None, :], torch.cat([sin, sin], -1)[..., None, :]
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


@pytest.mark.parametrize("lead", [(), (3,)])
def test_values_and_gradients_with_unequal_heads(lead: tuple[int, ...]) -> None:
    q = torch.randn(3, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, 5, 2, 6, dtype=torch.float64, requires_grad=True)
    cos, sin = angles(*lead, 5, 3)
    ours = ck.rope(q, k, cos, sin)
    wanted = (expected(q, cos, sin), expected(k, cos, sin))
    torch.testing.assert_close(ours, wanted)
    upstream = [torch.randn_like(part) for part in wanted]
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k), upstream), torch.autograd.grad(wanted, (q, k), upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_slices_of_one_projection_and_gradcheck() -> None:
    qkv = torch.randn(2, 4, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    cos, sin = angles(2, 4, 2)
    assert torch.autograd.gradcheck(lambda x: ck.rope(*x.unbind(2)[:2], cos, sin), (qkv,))


def test_bf16_is_rotated_in_fp32() -> None:
    q = torch.randn(2, 4, 2, 8).bfloat16()
    cos, sin = (part.float() for part in angles(2, 4, 4))
    ours, _ = ck.rope(q, q, cos, sin)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, expected(q.float(), cos, sin).bfloat16())


def test_angles_that_do_not_fit() -> None:
    q = torch.zeros(2, 3, 1, 6)
    with pytest.raises(ValueError, match="head_dim 6"):
        ck.rope(q, q, torch.zeros(3, 2), torch.zeros(3, 2))
