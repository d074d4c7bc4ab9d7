"""linear_cross_entropy against torch's linear and cross-entropy in float64."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck

N, WIDTH, CLASSES = 13, 8, 11
OPTIONS = [
    {"reduction": reduction, "label_smoothing": smoothing, "z_loss": z_loss}
    for reduction, smoothing, z_loss in itertools.product(("none", "sum", "mean"), (0.0, 0.1), (0.0, 1e-2))
]


def make(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, bias that want gradients, and a target with ignored rows."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((N, WIDTH), (CLASSES, WIDTH))]
    bias = torch.randn(CLASSES, generator=generator, dtype=dtype)
    target = torch.randint(0, CLASSES, (N,), generator=generator)
    target[[0, 5, 6]] = -100
    return *(part.requires_grad_() for part in (*parts, bias)), target


def expected(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, **options: Any) -> Tensor:
    z_loss, reduction = options.pop("z_loss", 0.0), options.pop("reduction", "mean")
    logits = F.linear(hidden, weight, bias)
    losses = F.cross_entropy(logits, target, reduction="none", **options)
    valid = target != options.get("ignore_index", -100)
    losses = losses + torch.where(valid, z_loss * logits.logsumexp(-1).square(), 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / valid.sum()}[reduction]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunk_rows", [1, 5, None])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients(options: dict[str, Any], chunk_rows: int | None, with_bias: bool) -> None:
    hidden, weight, bias, target = make()
    chosen = bias if with_bias else None
    ours = ck.linear_cross_entropy(hidden, weight, target, bias=chosen, chunk_rows=chunk_rows, **options)
    wanted = expected(hidden, weight, chosen, target, **options)
    torch.testing.assert_close(ours, wanted)
    parts = [hidden, weight, bias] if with_bias else [hidden, weight]
    upstream = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad(ours, parts, upstream), torch.autograd.grad(wanted, parts, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradcheck(reduction: str) -> None:
    hidden, weight, bias, target = make()
    assert torch.autograd.gradcheck(
        lambda h, w, b: ck.linear_cross_entropy(
            h, w, target, bias=b, reduction=reduction, label_smoothing=0.1, z_loss=1e-2, chunk_rows=4
        ),
        (hidden, weight, bias),
    )


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("wanted", ["hidden", "weight"])
def test_gradient_of_one_input_alone(wanted: str, reduction: str) -> None:
    hidden, weight, _, target = make()
    other = {"hidden": weight, "weight": hidden}[wanted].requires_grad_(False)
    loss = ck.linear_cross_entropy(hidden, weight, target, reduction=reduction).sum()
    loss.backward()
    assert other.grad is None
    part = {"hidden": hidden, "weight": weight}[wanted]
    reference = torch.autograd.grad(expected(hidden, weight, None, target, reduction="sum"), part)[0]
    torch.testing.assert_close(part.grad, reference)


def test_autocast_computes_in_bf16_and_returns_fp32() -> None:
    hidden, weight, bias, target = make(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ck.linear_cross_entropy(hidden, weight, target, bias=bias, reduction="sum")
    assert loss.dtype == torch.float32
    loss.backward()
    reference = expected(hidden, weight, bias, target, reduction="sum")
    torch.testing.assert_close(loss, reference, atol=0.05, rtol=0.01)
    for part, wanted in zip(
        (hidden, weight, bias), torch.autograd.grad(reference, (hidden, weight, bias)), strict=True
    ):
        assert part.grad is not None
        assert part.grad.dtype == torch.float32
        torch.testing.assert_close(part.grad, wanted, atol=0.05, rtol=0.05)


def test_a_confident_target_keeps_its_gradient_in_bf16() -> None:
    hidden = torch.tensor([[7.0]], dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16)
    ck.linear_cross_entropy(hidden, weight, torch.tensor([0]), reduction="sum").backward()
    assert hidden.grad is not None
    # softmax = 0.99909, which bf16 rounds to 1: the gradient would be 0.
    torch.testing.assert_close(hidden.grad.float(), torch.tensor([[-9.1e-4]]), atol=1e-5, rtol=0.02)


def test_no_valid_row_is_nan_as_a_mean_and_gives_no_gradient() -> None:
    hidden, weight, _, target = make()
    target = torch.full_like(target, -100)
    loss = ck.linear_cross_entropy(hidden, weight, target)
    assert loss.isnan()
    assert ck.linear_cross_entropy(hidden, weight, target, reduction="sum") == 0
    loss.backward()
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_extreme_logits() -> None:
    weight = torch.eye(3, dtype=torch.float64)
    hidden = torch.tensor([[1e4, 0.0, -1e4], [float("nan"), 0, 0], [-1e30, -1e30, -1e30]], dtype=torch.float64)
    target = torch.tensor([2, 0, 1])
    ours = ck.linear_cross_entropy(hidden, weight, target, reduction="none")
    torch.testing.assert_close(ours, expected(hidden, weight, None, target, reduction="none"), equal_nan=True)


def test_empty_input() -> None:
    hidden, weight = torch.zeros(0, 4, requires_grad=True), torch.zeros(5, 4, requires_grad=True)
    target = torch.zeros(0, dtype=torch.int64)
    loss = ck.linear_cross_entropy(hidden, weight, target, reduction="sum")
    loss.backward()
    assert loss == 0
    assert weight.grad is not None
    assert not weight.grad.any()


def test_other_ignore_index() -> None:
    hidden, weight, _, target = make()
    target[target == -100] = 3
    ours = ck.linear_cross_entropy(hidden, weight, target, ignore_index=3)
    torch.testing.assert_close(ours, expected(hidden, weight, None, target, ignore_index=3))


def test_backward_twice_gives_the_same() -> None:
    hidden, weight, _, target = make()
    loss = ck.linear_cross_entropy(hidden, weight, target)
    first = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    second = torch.autograd.grad(loss * 2, weight)[0]
    torch.testing.assert_close(second, first * 2)


def test_bad_words() -> None:
    hidden, weight, _, target = make()
    with pytest.raises(ValueError, match="reduction"):
        ck.linear_cross_entropy(hidden, weight, target, reduction="max")
    with pytest.raises(ValueError, match="chunk_rows"):
        ck.linear_cross_entropy(hidden, weight, target, chunk_rows=0)
