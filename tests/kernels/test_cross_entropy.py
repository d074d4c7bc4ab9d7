"""cross_entropy is compared with torch\'s in float64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import cram_kernels as ck

LOSS_TOLERANCE = 1e-5
# The interpreter truncates fp32 to bf16 where hardware rounds, so bf16 is allowed a whole unit in the last place.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-10}
HALF = [torch.float16, torch.bfloat16]
INFINITY, NAN = float("inf"), float("nan")


def torch_reference(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    losses = F.cross_entropy(
        logits, target, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
    )
    valid = target != ignore_index
    if z_loss:
        class_dim = min(1, logits.ndim - 1)
        losses = losses + torch.where(valid, z_loss * logits.logsumexp(class_dim).square(), 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / valid.sum()}[reduction]


def check(logits: Tensor, target: Tensor, **options: object) -> Tensor:
    """Compare value and gradient with float64, and return the value."""
    inputs = logits.detach().requires_grad_()
    wide_inputs = logits.detach().double().requires_grad_()
    computed = ck.cross_entropy(inputs, target, **options)  # type: ignore[arg-type]
    expected = torch_reference(wide_inputs, target, **options)  # type: ignore[arg-type]
    assert computed.dtype == torch.promote_types(logits.dtype, torch.float32)
    assert computed.shape == expected.shape
    torch.testing.assert_close(computed.double(), expected, atol=LOSS_TOLERANCE, rtol=LOSS_TOLERANCE, equal_nan=True)
    upstream = torch.randn(expected.shape, device=logits.device)
    (computed_grad,) = torch.autograd.grad(computed, inputs, upstream.to(computed.dtype))
    (expected_grad,) = torch.autograd.grad(expected, wide_inputs, upstream.double())
    assert (computed_grad.dtype, computed_grad.shape) == (logits.dtype, logits.shape)
    close(computed_grad, expected_grad)
    return computed


def close(computed_grad: Tensor, expected_grad: Tensor) -> None:
    """Compare a gradient within the tolerance of its dtype, relative to the largest entry."""
    tolerance, finite = TOLERANCE[computed_grad.dtype], expected_grad[expected_grad.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 1.0
    torch.testing.assert_close(
        computed_grad.double(), expected_grad, atol=tolerance * largest, rtol=tolerance, equal_nan=True
    )


def randn(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return (3 * torch.randn(*shape, device=device)).to(dtype)


def classes_of(rows: int, classes: int, device: torch.device) -> Tensor:
    return torch.randint(0, classes, (rows,), device=device)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_values_and_gradients(
    reduction: str, label_smoothing: float, z_loss: float, dtype: torch.dtype, device: torch.device, backend: str
) -> None:
    rows, classes = (4099, 1000) if backend == "gpu" else (21, 9)
    target = classes_of(rows, classes, device)
    target[::4] = -100
    logits = randn(rows, classes, dtype=dtype, device=device)
    check(logits, target, reduction=reduction, label_smoothing=label_smoothing, z_loss=z_loss)


@pytest.mark.no_launch
def test_float64_takes_the_reference(device: torch.device) -> None:
    logits = torch.randn(7, 9, dtype=torch.float64, device=device)
    target = torch.tensor([0, -100, 8, 3, 3, -100, 1], device=device)
    check(logits, target, label_smoothing=0.1, z_loss=1e-2)


@pytest.mark.parametrize("classes", [1, 2, 3, 17, 100, 1000, 8192, 8193, 32_768, 50_257, 65_537, 131_072])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_of_classes(classes: int, dtype: torch.dtype, device: torch.device) -> None:
    target = torch.tensor([classes - 1, 0, classes // 2], device=device)
    check(randn(3, classes, dtype=dtype, device=device), target, label_smoothing=0.1, z_loss=1e-3, reduction="none")


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 7, 3), (2, 7, 3, 2)])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_one_to_four_dimensions(shape: tuple[int, ...], reduction: str, device: torch.device) -> None:
    without = torch.Size(size for n, size in enumerate(shape) if n != min(1, len(shape) - 1))
    target = classes_of(without.numel(), 7, device).view(without)
    check(randn(*shape, device=device), target, reduction=reduction, label_smoothing=0.1)


@pytest.mark.no_launch
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_rows(reduction: str, device: torch.device) -> None:
    check(randn(0, 7, device=device), classes_of(0, 7, device), reduction=reduction)


def strided(kind: str, device: torch.device) -> Tensor:
    base = torch.randn(12, 32, device=device)
    return {
        "a part of longer rows": base[:, 3:19],
        "every second row": base[::2, :16],
        "transposed": torch.randn(16, 6, device=device).t(),
        "columns apart": base[:, ::2],
        "expanded": base[:1, :16].expand(6, 16),
        "unaligned": torch.randn(6 * 16 + 1, device=device)[1:].view(6, 16),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["a part of longer rows", "every second row", "transposed", "columns apart", "expanded", "unaligned"]
)
def test_any_strides_of_the_logits(kind: str, device: torch.device) -> None:
    logits = strided(kind, device)
    check(logits, classes_of(len(logits), 16, device))


def test_any_strides_of_the_target(device: torch.device) -> None:
    logits = randn(6, 16, device=device)
    check(logits, torch.tensor(3, device=device).expand(6))
    check(logits, classes_of(18, 16, device)[::3])
    check(logits, classes_of(7, 16, device)[1:])


def test_an_upstream_gradient_of_any_strides(device: torch.device) -> None:
    logits, target = randn(6, 9, device=device).requires_grad_(), classes_of(6, 9, device)
    for upstream in (torch.full((), 0.3, device=device).expand(6), torch.randn(12, device=device)[::2]):
        (computed,) = torch.autograd.grad(ck.cross_entropy(logits, target, reduction="none"), logits, upstream)
        (expected,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="none"), logits, upstream)
        torch.testing.assert_close(computed, expected)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("ignored", [[], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("ignore_index", [-100, 4, 10**12])
def test_ignored_rows(reduction: str, ignored: list[int], ignore_index: int, device: torch.device) -> None:
    target = torch.tensor([1, 2, 3], device=device)
    target[ignored] = ignore_index
    logits = randn(3, 6, device=device)
    computed = check(logits, target, reduction=reduction, ignore_index=ignore_index, label_smoothing=0.1, z_loss=1e-2)
    if len(ignored) == 3:
        assert computed.isnan() if reduction == "mean" else not computed.any()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("held", [NAN, INFINITY, -INFINITY])
def test_the_logits_of_an_ignored_row_do_not_count(reduction: str, held: float, device: torch.device) -> None:
    """In torch they do not count either, except that the gradient of the row itself is NaN."""
    logits = randn(3, 6, device=device)
    logits[1] = held
    target = torch.tensor([1, -100, 3], device=device)
    options = {"reduction": reduction, "label_smoothing": 0.1}
    logits.requires_grad_()
    computed = ck.cross_entropy(logits, target, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(computed, F.cross_entropy(logits, target, **options))  # type: ignore[arg-type]
    (grad,) = torch.autograd.grad(computed.sum(), logits)
    assert not grad[1].any()
    assert grad[[0, 2]].isfinite().all()


@pytest.mark.no_launch
@pytest.mark.parametrize("outside", [-1, 6, 2**40])
def test_a_target_out_of_range_raises_or_gives_nan(outside: int, device: torch.device, backend: str) -> None:
    logits = randn(3, 6, device=device).requires_grad_()
    target = torch.tensor([1, outside, 5], device=device)
    if backend == "reference":
        with pytest.raises(IndexError, match=rf"target {outside} is out of range: there are 6 classes"):
            ck.cross_entropy(logits, target)
        return
    losses = ck.cross_entropy(logits, target, reduction="none", label_smoothing=0.1)
    losses.sum().backward()
    assert logits.grad is not None
    assert losses.isnan().tolist() == [False, True, False]
    assert logits.grad.isnan().all(1).tolist() == [False, True, False]
    assert ck.cross_entropy(logits, target).isnan()


ROWS = {
    "another class is -inf": [1.0, 2.0, -INFINITY, 0.0],
    "the target is -inf": [1.0, -INFINITY, 2.0, 0.0],
    "all but the target are -inf": [-INFINITY, 1.0, -INFINITY, -INFINITY],
    "all are -inf": [-INFINITY] * 4,
    "one is NaN": [1.0, 2.0, NAN, 0.0],
    "the target is NaN": [1.0, NAN, 2.0, 0.0],
    "all are NaN": [NAN] * 4,
    "another class is inf": [1.0, 2.0, INFINITY, 0.0],
    "the target is inf": [1.0, INFINITY, 2.0, 0.0],
    "1e4 for all": [1e4, 1e4 + 1, 1e4 + 2, 1e4 - 1],
    "-1e4 for all": [-1e4, -1e4 + 1, -1e4 + 2, -1e4 - 1],
    "1e4 apart": [1e4, 0.0, -1e4, 5e3],
    "-1e30 for all": [-1e30] * 4,
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("width", [4, 8200])  # one block; several, the first or last of nothing but -inf
def test_extreme_logits(row: str, label_smoothing: float, width: int, device: torch.device) -> None:
    logits = torch.full((3, width), -INFINITY if label_smoothing == 0 else -1.0, device=device)
    logits[1, :4] = torch.tensor(ROWS[row], device=device)
    logits[2, -4:] = torch.tensor(ROWS[row], device=device)
    logits[0, :4] = 1.0
    check(logits, torch.tensor([0, 1, width - 3], device=device), reduction="none", label_smoothing=label_smoothing)


def test_z_loss_of_extreme_logits(device: torch.device) -> None:
    logits = torch.tensor([[1e4, 1e4 + 1, 0.0], [-INFINITY] * 3, [1.0, NAN, 2.0]], device=device)
    check(logits, torch.tensor([0, 1, 2], device=device), reduction="none", z_loss=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_a_large_offset_of_a_row_loses_no_precision(offset: float, device: torch.device) -> None:
    check(randn(5, 300, device=device) + offset, classes_of(5, 300, device), reduction="none", label_smoothing=0.1)


def test_a_nearly_certain_target_keeps_its_gradient_in_bf16(device: torch.device) -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0], [14.0, 0.0, 0.0]], dtype=torch.bfloat16, device=device).requires_grad_()
    ck.cross_entropy(logits, torch.zeros(2, dtype=torch.int64, device=device), reduction="sum").backward()
    exact = logits.detach().double().softmax(1)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[:, 0].double(), exact[:, 0] - 1, atol=1e-7, rtol=1e-2)


def test_logits_that_are_used_twice_are_not_changed(device: torch.device) -> None:
    leaf = randn(5, 9, device=device).requires_grad_()
    logits = leaf * 1.0
    before, target = logits.detach().clone(), classes_of(5, 9, device)
    (ck.cross_entropy(logits, target) + ck.cross_entropy(logits, target, label_smoothing=0.2) + logits.sum()).backward()
    assert torch.equal(logits, before)
    wide_inputs = before.double().requires_grad_()
    (
        torch_reference(wide_inputs, target)
        + torch_reference(wide_inputs, target, label_smoothing=0.2)
        + wide_inputs.sum()
    ).backward()
    assert leaf.grad is not None and wide_inputs.grad is not None
    close(leaf.grad, wide_inputs.grad)


def test_without_a_gradient_the_loss_is_the_same(device: torch.device) -> None:
    logits, target = randn(5, 9, device=device), classes_of(5, 9, device)
    loss = ck.cross_entropy(logits, target)
    assert not loss.requires_grad
    assert torch.equal(loss, ck.cross_entropy(logits.clone().requires_grad_(), target).detach())


def test_a_loss_that_is_not_used_has_no_gradient(device: torch.device) -> None:
    logits = randn(5, 9, device=device).requires_grad_()
    ck.cross_entropy(logits, classes_of(5, 9, device), reduction="none")[:0].sum().backward()
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_twice_gives_the_same_bits(reduction: str, device: torch.device) -> None:
    logits, target = randn(40, 96, device=device).requires_grad_(), classes_of(40, 96, device)
    losses = [ck.cross_entropy(logits, target, reduction=reduction) for _ in range(2)]
    assert torch.equal(*losses)
    upstream = torch.randn_like(losses[0])
    first = torch.autograd.grad(losses[0], logits, upstream, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(losses[0], logits, upstream)[0])
    assert torch.equal(first[0], torch.autograd.grad(losses[1], logits, upstream)[0])


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_returns_fp32_also_under_autocast(dtype: torch.dtype, device: torch.device) -> None:
    logits, target = randn(3, 5, dtype=dtype, device=device).requires_grad_(), classes_of(3, 5, device)
    with torch.autocast(device.type, torch.bfloat16):
        loss = ck.cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), F.cross_entropy(logits.double(), target), atol=1e-5, rtol=1e-5)
    loss.backward()
    assert logits.grad is not None and logits.grad.dtype == dtype


def test_saves_the_logits_and_two_numbers_of_each_row(device: torch.device) -> None:
    logits, keep = randn(5, 64, device=device).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: keep.append(part) or part, lambda part: part):
        ck.cross_entropy(logits, classes_of(5, 64, device), reduction="none")
    assert sorted(tuple(part.shape) for part in keep) == [(2, 5), (5,), (5, 64)]
    assert logits.data_ptr() in [part.data_ptr() for part in keep]


@pytest.mark.no_launch
def test_arguments_that_do_not_fit_are_refused(device: torch.device) -> None:
    target = torch.zeros(2, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match="reduction must be none, sum or mean, not 'median'"):
        ck.cross_entropy(torch.zeros(2, 3, device=device), target, reduction="median")
    for shape in ((), (2,), (3, 2), (2, 0), (2, 3, 1)):
        with pytest.raises(ValueError, match=r"logits \(.*\) do not fit target \(2,\)"):
            ck.cross_entropy(torch.zeros(shape, device=device), target)
    with pytest.raises(TypeError, match=r"target must hold class indices as int64, not torch\.float32"):
        ck.cross_entropy(torch.zeros(2, 3, device=device), torch.zeros(2, 3, device=device))
