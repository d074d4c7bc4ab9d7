"""geglu and swiglu against torch's activations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck

CASES = [(ck.geglu, F.gelu), (ck.swiglu, F.silu)]


@pytest.mark.parametrize(("op", "act"), CASES, ids=["geglu", "swiglu"])
@pytest.mark.parametrize("contiguous", [True, False])
def test_values_and_gradients(op: Callable[..., Tensor], act: Callable[..., Tensor], contiguous: bool) -> None:
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    given = x if contiguous else x.transpose(0, 1)
    first, second = given.chunk(2, -1)
    wanted = act(first) * second
    ours = op(given)
    torch.testing.assert_close(ours, wanted)
    upstream = torch.randn_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(ours, x, upstream)[0], torch.autograd.grad(wanted, x, upstream)[0])


@pytest.mark.parametrize("op", [ck.geglu, ck.swiglu])
def test_gradcheck_and_dtype(op: Callable[..., Tensor]) -> None:
    assert torch.autograd.gradcheck(op, (torch.randn(2, 6, dtype=torch.float64, requires_grad=True),))
    assert op(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16
    assert op(torch.randn(0, 6)).shape == (0, 3)


def test_odd_width() -> None:
    with pytest.raises(ValueError, match="even"):
        ck.geglu(torch.zeros(2, 3))
