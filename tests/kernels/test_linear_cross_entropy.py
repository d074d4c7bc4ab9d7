"""linear_cross_entropy is compared with torch\'s linear and cross-entropy in float64."""

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
# Half precision rounds logits, their gradient and the products of both. The interpreter truncates instead.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]
NAN = float("nan")

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def make(device: torch.device, dtype: torch.dtype = torch.float32, classes: int = CLASSES, rows: int = N) -> Inputs:
    """Make hidden, weight and bias that need gradients, and a target with ignored rows."""
    parts = [torch.randn(*shape, device=device) for shape in ((rows, WIDTH), (classes, WIDTH), (classes,))]
    target = torch.randint(0, classes, (rows,), device=device)
    target[::6] = -100
    hidden, weight, bias = (part.to(dtype).requires_grad_() for part in parts)
    return hidden, weight, bias, target


def torch_reference(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, **options: Any) -> Tensor:
    z_loss, reduction = options.pop("z_loss", 0.0), options.pop("reduction", "mean")
    logits = F.linear(hidden, weight, bias)
    losses = F.cross_entropy(logits, target, reduction="none", **options)
    valid = target != options.get("ignore_index", -100)
    losses = losses + torch.where(valid, z_loss * logits.logsumexp(-1).square(), 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / valid.sum()}[reduction]


def close(computed_grad: Tensor, expected_grad: Tensor, tolerance: float) -> None:
    """Compare within a tolerance relative to the largest entry."""
    largest = float(expected_grad.detach().nan_to_num().abs().max()) if expected_grad.numel() else 1.0
    bound = tolerance * max(largest, 1e-3)
    torch.testing.assert_close(computed_grad.double(), expected_grad, atol=bound, rtol=tolerance, equal_nan=True)


def check(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, chunk_rows: int | None = None, **options: Any
) -> Tensor:
    """Compare value and gradients of all inputs with float64, and return the value."""
    inputs = [None if part is None else part.detach().requires_grad_() for part in (hidden, weight, bias)]
    wide_inputs = [None if part is None else part.detach().double().requires_grad_() for part in inputs]
    tolerance = TOLERANCE[hidden.dtype]
    computed = ck.linear_cross_entropy(*inputs[:2], target, bias=inputs[2], chunk_rows=chunk_rows, **options)  # type: ignore
    expected = torch_reference(*wide_inputs, target, **options)  # type: ignore[arg-type]
    assert computed.dtype == torch.promote_types(hidden.dtype, torch.float32)
    assert computed.shape == expected.shape
    close(computed, expected, tolerance)
    upstream = torch.randn(expected.shape, device=hidden.device)
    computed_grad = torch.autograd.grad(
        computed, [part for part in inputs if part is not None], upstream.to(computed.dtype)
    )
    expected_grad = torch.autograd.grad(expected, [part for part in wide_inputs if part is not None], upstream.double())
    for left, right, part in zip(computed_grad, expected_grad, (hidden, weight, bias), strict=False):
        assert part is not None
        assert (left.dtype, left.shape) == (part.dtype, part.shape)
        close(left, right, tolerance)
    return computed


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("chunk_rows", [5, None])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients(
    options: dict[str, Any], chunk_rows: int | None, with_bias: bool, device: torch.device
) -> None:
    hidden, weight, bias, target = make(device)
    check(hidden, weight, bias if with_bias else None, target, chunk_rows, **options)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(reduction: str, dtype: torch.dtype, device: torch.device) -> None:
    check(*make(device, dtype), chunk_rows=5, reduction=reduction, label_smoothing=0.1, z_loss=1e-2)


@pytest.mark.no_launch
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradcheck_in_float64_which_the_reference_serves(reduction: str, device: torch.device) -> None:
    hidden, weight, bias, target = make(device, torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: ck.linear_cross_entropy(
            h, w, target, bias=b, reduction=reduction, label_smoothing=0.1, z_loss=1e-2, chunk_rows=4
        ),
        (hidden, weight, bias),
    )


@pytest.mark.parametrize("classes", [1, 2, 17, 1000, 8193, 32_768, 50_257, 65_537])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_of_classes(classes: int, dtype: torch.dtype, device: torch.device) -> None:
    check(*make(device, dtype, classes, rows=4), reduction="sum", label_smoothing=0.1)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_chunks_of_any_size_give_the_same(reduction: str, device: torch.device) -> None:
    hidden, weight, bias, target = make(device)

    def run(chunk_rows: int) -> list[Tensor]:
        loss = ck.linear_cross_entropy(hidden, weight, target, bias=bias, reduction=reduction, chunk_rows=chunk_rows)
        return [loss.detach(), *torch.autograd.grad(loss.sum(), (hidden, weight, bias))]

    whole = run(N)
    for chunk_rows in (1, 3, 100):
        for left, right in zip(run(chunk_rows), whole, strict=True):
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["hidden", "weight", "bias"])
def test_a_gradient_for_one_input_alone(which: int, reduction: str, device: torch.device) -> None:
    hidden, weight, bias, target = make(device)
    for n, part in enumerate((hidden, weight, bias)):
        part.requires_grad_(n == which)
    ck.linear_cross_entropy(hidden, weight, target, bias=bias, reduction=reduction, chunk_rows=5).sum().backward()
    expected = torch_reference(hidden, weight, bias, target, reduction="sum")
    (expected_grad,) = torch.autograd.grad(expected, (hidden, weight, bias)[which])
    for n, part in enumerate((hidden, weight, bias)):
        assert (part.grad is not None) == (n == which)
    torch.testing.assert_close((hidden, weight, bias)[which].grad, expected_grad, atol=1e-5, rtol=1e-5)


def test_without_a_gradient_the_loss_is_the_same_and_none_is_computed(device: torch.device) -> None:
    hidden, weight, bias, target = make(device)
    loss = ck.linear_cross_entropy(hidden, weight, target, bias=bias)
    with torch.no_grad():
        scored = ck.linear_cross_entropy(hidden, weight, target, bias=bias)
    assert not scored.requires_grad
    torch.testing.assert_close(scored, loss.detach(), atol=1e-6, rtol=1e-6)
    parts = torch.ops.cram.linear_cross_entropy(
        *(part.detach() for part in (hidden, weight, bias)), target, -100, 0.0, 0.0, 5, "sum", False, True, False
    )
    loss, grad_hidden, grad_weight, grad_bias = parts
    assert loss.shape == () and grad_weight.shape == weight.shape
    assert grad_hidden is None and grad_bias is None


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_in_bf16_and_returns_fp32(
    hidden_dtype: torch.dtype, weight_dtype: torch.dtype, device: torch.device
) -> None:
    hidden, weight, bias, target = make(device)
    hidden = hidden.detach().to(hidden_dtype).requires_grad_()
    weight = weight.detach().to(weight_dtype).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        loss = ck.linear_cross_entropy(hidden, weight, target, bias=bias, reduction="sum", chunk_rows=5)
    assert loss.dtype == torch.float32
    loss.backward()
    parts = (hidden, weight, bias)
    doubles = [part.detach().double().requires_grad_() for part in parts]
    expected = torch_reference(*doubles, target, reduction="sum")
    close(loss, expected, 1e-2)
    for part, expected_grad in zip(parts, torch.autograd.grad(expected, doubles), strict=True):
        assert part.grad is not None and part.grad.dtype == part.dtype
        close(part.grad, expected_grad, TOLERANCE[torch.bfloat16])


@pytest.mark.no_launch
def test_autocast_leaves_float64_alone(device: torch.device) -> None:
    hidden, weight, bias, target = make(device, torch.float64)
    with torch.autocast(device.type, torch.bfloat16):
        loss = ck.linear_cross_entropy(hidden, weight, target, bias=bias)
    torch.testing.assert_close(loss, torch_reference(hidden, weight, bias, target))


@pytest.mark.parametrize("ignored", ["none", "some", "all"])
@pytest.mark.parametrize("ignore_index", [-100, 3])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_ignored_rows(ignored: str, ignore_index: int, reduction: str, device: torch.device) -> None:
    hidden, weight, bias, _ = make(device)
    target = torch.arange(N, device=device) % 3
    target[{"none": slice(0), "some": slice(2, 7), "all": slice(None)}[ignored]] = ignore_index
    computed = check(
        hidden, weight, bias, target, 4, reduction=reduction, ignore_index=ignore_index, label_smoothing=0.1
    )
    if ignored == "all":
        assert computed.isnan() if reduction == "mean" else not computed.any()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("held", [NAN, float("inf")])
def test_the_values_of_an_ignored_row_do_not_count(reduction: str, held: float, device: torch.device) -> None:
    hidden, weight, bias, target = make(device)
    clean = torch.where(target[:, None] == -100, 0.0, hidden.detach())
    dirty = torch.where(target[:, None] == -100, held, hidden.detach())
    computed_grad = []
    for rows in (clean.requires_grad_(), dirty.requires_grad_()):
        loss = ck.linear_cross_entropy(rows, weight, target, bias=bias, reduction=reduction, z_loss=1e-2)
        computed_grad.append([loss.detach(), *torch.autograd.grad(loss.sum(), (rows, weight, bias))])
    for left, right in zip(*computed_grad, strict=True):
        assert torch.equal(left, right)
    assert not computed_grad[0][1][target == -100].any()


@pytest.mark.no_launch
def test_a_target_out_of_range_raises_or_gives_nan(device: torch.device, backend: str) -> None:
    hidden, weight, _, target = make(device)
    target[2] = CLASSES
    if backend == "reference":
        with pytest.raises(IndexError, match=f"target {CLASSES} is out of range: there are {CLASSES} classes"):
            ck.linear_cross_entropy(hidden, weight, target)
        return
    loss = ck.linear_cross_entropy(hidden, weight, target)
    loss.backward()
    assert hidden.grad is not None and weight.grad is not None
    assert loss.isnan()
    assert hidden.grad.isnan().any(1).tolist() == [n == 2 for n in range(N)]
    assert weight.grad.isnan().all()


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_extreme_logits(reduction: str, device: torch.device) -> None:
    inf = float("inf")
    hidden = torch.tensor(
        [[1e4, 0.0, -1e4], [NAN, 0, 0], [-1e30, -1e30, -1e30], [1e4, 1e4 + 1, 1e4 + 2], [-1e4, -1e4 + 1, -1e4]],
        device=device,
    )
    target = torch.tensor([2, 0, 1, 1, 0], device=device)
    check(hidden, torch.eye(3, device=device), None, target, reduction=reduction)
    finite = torch.tensor([0, 3, 4], device=device)
    options = {"reduction": reduction, "label_smoothing": 0.1}
    check(hidden[finite], torch.eye(3, device=device), None, target[finite], 2, **options)
    # A bias of -inf is how a class is excluded.
    bias = torch.tensor([0.0, 0.0, -inf], device=device)
    check(hidden[3:], torch.eye(3, device=device), bias, target[3:], reduction=reduction)


@pytest.mark.no_launch
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_rows_give_zero_gradients(reduction: str, device: torch.device) -> None:
    hidden, weight = (torch.zeros(rows, 4, device=device).requires_grad_() for rows in (0, 5))
    target = torch.zeros(0, dtype=torch.int64, device=device)
    loss = ck.linear_cross_entropy(hidden, weight, target, reduction=reduction)
    loss.sum().backward()
    assert {"none": loss.shape == (0,), "sum": loss.sum() == 0, "mean": loss.isnan().all()}[reduction]
    assert weight.grad is not None and not weight.grad.any()
    assert hidden.grad is not None and hidden.grad.shape == (0, 4)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_any_strides(reduction: str, device: torch.device) -> None:
    _, _, bias, target = make(device)
    hidden, weight = torch.randn(WIDTH, N, device=device).t(), torch.randn(CLASSES, 2 * WIDTH, device=device)[:, ::2]
    check(hidden, weight, bias, target, 5, reduction=reduction)
    unaligned = torch.randn(N * WIDTH + 1, device=device)[1:].view(N, WIDTH)
    check(unaligned, weight, bias, torch.tensor(4, device=device).expand(N), 5, reduction=reduction)
    check(hidden[:1].expand(N, WIDTH), weight, None, target.repeat_interleave(2)[::2], 5, reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_twice_gives_the_same_bits_and_changes_no_input(reduction: str, device: torch.device) -> None:
    hidden, weight, bias, target = parts = make(device)
    before = [part.detach().clone() for part in parts]

    def loss() -> Tensor:
        return ck.linear_cross_entropy(hidden, weight, target, bias=bias, reduction=reduction, chunk_rows=5)

    left, right = loss(), loss()
    assert torch.equal(left, right)
    upstream = torch.randn_like(left)
    first = torch.autograd.grad(left, parts[:3], upstream, retain_graph=True)
    for again in (torch.autograd.grad(loss, parts[:3], upstream) for loss in (left, right)):
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert all(torch.equal(*pair) for pair in zip(parts, before, strict=True))


@pytest.mark.no_launch
def test_arguments_that_do_not_fit_are_refused(device: torch.device) -> None:
    hidden, weight, bias, target = make(device)
    with pytest.raises(ValueError, match="reduction must be none, sum or mean, not 'max'"):
        ck.linear_cross_entropy(hidden, weight, target, reduction="max")
    with pytest.raises(ValueError, match="chunk_rows must be positive, not 0"):
        ck.linear_cross_entropy(hidden, weight, target, chunk_rows=0)
    with pytest.raises(TypeError, match="target must hold class indices as int64"):
        ck.linear_cross_entropy(hidden, weight, target.float())
    for parts in ((hidden[0], weight, target), (hidden, weight[:, 1:], target), (hidden, weight, target[1:])):
        with pytest.raises(ValueError, match=r"do not fit: they must be \(N, width\), \(classes, width\) and \(N\)"):
            ck.linear_cross_entropy(*parts)
    with pytest.raises(ValueError, match=r"bias \(10,\) does not fit weight \(11, 8\)"):
        ck.linear_cross_entropy(hidden, weight, target, bias=bias[1:])
