"""linear_cross_entropy where half precision would lose a gradient, and how much memory it takes."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cram_kernels as ck

MODULE = sys.modules["cram_kernels.linear_cross_entropy"]  # the package has the function under this name


def test_the_weights_gradient_is_summed_in_fp32(device: torch.device) -> None:
    """In bf16 a sum of equal terms stops growing after 256 of them."""
    rows = 600
    hidden = torch.ones(rows, 1, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, device=device).requires_grad_()
    bias = torch.zeros(2, device=device).requires_grad_()
    target = torch.zeros(rows, dtype=torch.int64, device=device)
    ck.linear_cross_entropy(hidden, weight, target, bias=bias, reduction="sum", chunk_rows=1 + rows // 30).backward()
    for part in (weight, bias):
        assert part.grad is not None
        torch.testing.assert_close(part.grad.flatten().float().cpu(), torch.tensor([-300.0, 300.0]), atol=2, rtol=0)


def test_a_mean_scales_the_gradient_of_a_bias_precisely_in_bf16(device: torch.device) -> None:
    """1 / 3 rounded to bf16 would be 0.2% off."""
    hidden = torch.zeros(3, 1, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, device=device)
    bias = torch.zeros(2, device=device).requires_grad_()
    target = torch.zeros(3, dtype=torch.int64, device=device)
    (ck.linear_cross_entropy(hidden, weight, target, bias=bias, chunk_rows=1) / 3).backward()
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad.cpu(), torch.tensor([-1 / 6, 1 / 6]), atol=1e-4, rtol=0)


def test_a_confident_target_keeps_its_gradient_in_bf16(device: torch.device) -> None:
    hidden = torch.tensor([[7.0]], dtype=torch.bfloat16, device=device).requires_grad_()
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16, device=device)
    target = torch.zeros(1, dtype=torch.int64, device=device)
    ck.linear_cross_entropy(hidden, weight, target, reduction="sum").backward()
    assert hidden.grad is not None
    # softmax = 0.99909, which bf16 rounds to 1: the gradient would be 0.
    torch.testing.assert_close(hidden.grad.float().cpu(), torch.tensor([[-9.1e-4]]), atol=1e-5, rtol=0.02)


def test_an_upstream_factor_is_not_rounded_to_the_dtype_of_the_gradient(device: torch.device) -> None:
    hidden = torch.randn(13, 8, device=device).to(torch.bfloat16)
    weight = torch.randn(11, 8, device=device).to(torch.bfloat16).requires_grad_()
    target = torch.arange(13, device=device) % 11
    losses = [ck.linear_cross_entropy(hidden, weight, target) * factor for factor in (1, 1 / 3)]
    whole_grad, third_grad = (torch.autograd.grad(loss, weight)[0] for loss in losses)
    error = (third_grad.double() * 3 - whole_grad.double()) / whole_grad.double()
    assert float(error.abs().max()) < 2**-7
    assert abs(float(error.mean())) < 2**-10


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor."""

    bytes = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = op(*args, **(kwargs or {}))
        for part in results if isinstance(results, tuple | list) else [results]:
            if isinstance(part, Tensor):
                self.bytes = max(self.bytes, part.numel() * part.element_size())
        return results


@pytest.mark.parametrize("needs_grad", [True, False])
def test_never_holds_the_full_logits(needs_grad: bool, device: torch.device) -> None:
    """The functions inside the op are called directly, because a dispatch mode does not see inside an op."""
    hidden, weight, bias = (torch.randn(*shape, device=device) for shape in ((64, 8), (500, 8), (500,)))
    target = torch.randint(0, 500, (64,), device=device)
    parts, numbers = (hidden, weight, bias, target), (-100, 0.1, 1e-2, 16)
    with LargestTensor() as largest:
        MODULE._forward(*parts, *numbers, "sum", needs_grad, needs_grad, needs_grad)  # type: ignore[attr-defined]
        MODULE._rows_backward(torch.ones(64, device=device), *parts, *numbers, needs_grad, needs_grad, needs_grad)  # type: ignore[attr-defined]
    padded = 512
    assert 16 * 500 * 4 <= largest.bytes <= 16 * padded * 4
