"""The fakes of all ops have the shapes, dtypes and strides of real results, whatever the layout of the inputs is.

Real results are made in every way that `_dispatch` can take: by the reference and by the launchers, on a CPU and on a
GPU. Without a GPU the meta device stands for one: the functions inside the ops run on it as they would there, while the
ops themselves give their fakes. Launches are recorded, since what a launcher allocates does not depend on them.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import cram_kernels as ck
from cram_kernels import _dispatch
from cram_kernels._launch import record_launches

ops = torch.ops.cram
Shape = tuple[int, ...]
Make = Callable[..., Tensor]  # a tensor of a shape in one layout
Call = tuple[Any, tuple[Any, ...]]  # an op and its arguments


# --- layouts


def give_odd_strides_to_single_positions(make: Make, shape: Shape) -> Tensor:
    x = make(shape)
    return x.as_strided(shape, [7 if size == 1 else stride for size, stride in zip(shape, x.stride(), strict=True)])


# Each makes a tensor of a shape from contiguous tensors of other shapes.
LAYOUTS: dict[str, Callable[[Make, Shape], Tensor]] = {
    "contiguous": lambda make, shape: make(shape),
    "dimensions reversed": lambda make, shape: make(shape[::-1]).permute(*reversed(range(len(shape)))),
    "last two swapped": lambda make, shape: make((*shape[:-2], *shape[:-3:-1])).mT if shape[1:] else make(shape),
    "first two swapped": lambda make, shape: make((*shape[1::-1], *shape[2:])).movedim(0, len(shape[:2]) - 1),
    "first expanded": lambda make, shape: make((1, *shape[1:])).expand(shape),
    "last expanded": lambda make, shape: make((*shape[:-1], 1)).expand(shape),
    "columns apart": lambda make, shape: make((*shape[:-1], 2 * shape[-1] + 3))[..., 3::2],
    "a part of longer rows": lambda make, shape: make((*shape[:-1], shape[-1] + 5)).narrow(-1, 3, shape[-1]),
    "rows apart": lambda make, shape: make((2 * shape[0], *shape[1:]))[::2],
    "odd strides of single positions": give_odd_strides_to_single_positions,
}
FP32, BF16, FP64 = torch.float32, torch.bfloat16, torch.float64
INPUTS: list[tuple[Shape, torch.dtype]] = [
    ((2, 6, 8), FP32),
    ((2, 6, 8), BF16),
    ((6, 4), BF16),
    ((6, 4), FP64),
    ((2, 1, 2), FP32),
    ((1, 2), FP32),
    ((0, 4), BF16),
]


def maker(layout: str, dtype: torch.dtype, device: Any) -> Make:
    """Return a function that makes random tensors in a layout."""

    def make(shape: Shape, dtype: torch.dtype = dtype) -> Tensor:
        return LAYOUTS[layout](lambda base: torch.randn(base, dtype=dtype, device=device), shape)

    return make


# --- calls of every op


def layer_norm_calls(make: Make, contiguous: Make, shape: Shape) -> Iterator[Call]:
    x, dense, width = make(shape), contiguous(shape), shape[-1]
    wide = torch.promote_types(x.dtype, FP32)
    mean, rstd = (contiguous((torch.Size(shape[:-1]).numel(),), wide) for _ in range(2))
    for weight, bias in ((None, None), (make((width,)), None), (contiguous((width,), BF16), make((width,)))):
        yield ops.layer_norm, (x, None, weight, bias, 1e-5)
        yield ops.layer_norm, (dense, x, weight, bias, 1e-5)
        yield ops.layer_norm, (x, make(shape, FP32), weight, bias, 1e-5)
        yield ops.layer_norm_backward, (x, None, x, weight, bias, mean, rstd, True)
        yield ops.layer_norm_backward, (x, x, dense, weight, bias, mean, rstd, False)
        yield ops.layer_norm_backward, (dense, dense, x, weight, bias, mean, rstd, True)


def softmax_calls(make: Make, contiguous: Make, shape: Shape) -> Iterator[Call]:
    x, dense = make(shape), contiguous(shape)
    nothing = torch.zeros(shape[-1], dtype=torch.bool, device=x.device)
    for scale, mask in ((1.0, None), (0.5, None), (0.5, dense > 0), (1.0, x > 0), (1.0, nothing)):
        yield ops.softmax, (x, scale, mask)
    for scale, grad_shares, shares in ((1.0, x, x), (0.5, x, dense), (0.5, dense, x)):
        yield ops.softmax_backward, (grad_shares, shares, scale)


def gated_calls(make: Make, contiguous: Make, shape: Shape) -> Iterator[Call]:
    x, half = make(shape), (*shape[:-1], shape[-1] // 2)
    for name in ("geglu", "swiglu"):
        yield getattr(ops, name), (x,)
        for grad_y, inputs in ((make(half), x), (make(half), contiguous(shape)), (contiguous(half), x)):
            yield getattr(ops, f"{name}_backward"), (grad_y, inputs)


def rope_calls(make: Make, contiguous: Make, shape: Shape) -> Iterator[Call]:
    if len(shape) < 2:
        return
    *lead, tokens, width = shape
    q, k = make((*lead, tokens, 3, width)), make((*lead, tokens, 1, width))
    cos, sin = make((*lead, tokens, width // 2)), contiguous((*lead, tokens, width // 2))
    yield ops.rope, (q, contiguous(k.shape, FP32), cos, sin)
    yield ops.rope, (contiguous(q.shape), k, cos[..., :1, :], sin[..., :1, :])
    for grads in ((q, k), (q, None), (None, k)):
        yield ops.rope_backward, (*grads, cos, sin)


def cross_entropy_calls(make: Make, contiguous: Make, shape: Shape) -> Iterator[Call]:
    if len(shape) != 2:
        return
    x, (rows, classes) = make(shape), shape
    wide = torch.promote_types(x.dtype, FP32)
    losses, lse_parts = contiguous((rows,), wide), contiguous((2, rows), wide)
    target = torch.zeros(2 * rows, dtype=torch.int64, device=x.device)[::2]
    for grad_losses, terms in ((losses, (0, 0.0, 0.0)), (contiguous((1,), wide).expand(rows), (-100, 0.1, 0.1))):
        yield ops.cross_entropy, (x, target, *terms)
        yield ops.cross_entropy_backward, (grad_losses, x, target, lse_parts, *terms)
    for weight, bias in ((make((5, classes)), None), (contiguous((5, classes), FP32), make((5,)))):
        parts = x, weight, bias, target, -100, 0.1, 0.1, 4
        for needs_grad in ((True, True, True), (False, True, False)):
            yield ops.linear_cross_entropy, (*parts, "sum", *needs_grad)
            yield ops.linear_cross_entropy, (*parts, "none", *needs_grad)
            yield ops.linear_cross_entropy_rows_backward, (losses, *parts, *needs_grad)
        yield ops.linear_cross_entropy_backward, (losses.sum(), x, weight, bias)
        yield ops.linear_cross_entropy_backward, (losses.sum(), None, weight, None)


CALLS = [layer_norm_calls, softmax_calls, gated_calls, rope_calls, cross_entropy_calls]


def calls(layout: str, device: Any, inputs: list[tuple[Shape, torch.dtype]] = INPUTS) -> Iterator[Call]:
    """Yield calls of every op with inputs in a layout."""
    for (shape, dtype), make_calls in product(inputs, CALLS):
        yield from make_calls(maker(layout, dtype, device), maker("contiguous", dtype, device), shape)


@pytest.mark.no_launch
def test_all_ops_are_called() -> None:
    called = {op.default.name().removeprefix("cram::") for op, _ in calls("contiguous", "cpu")}
    assert called == set(_dispatch.implementations)


# --- comparisons of ops


def describe(parts: Any) -> list[Any]:
    """Return shape, dtype, strides and device of each tensor, and everything else as it is."""
    parts = parts if isinstance(parts, tuple) else (parts,)
    return [(p.shape, p.dtype, p.stride(), p.device.type) if isinstance(p, Tensor) else p for p in parts]


def as_fakes(parts: tuple[Any, ...], mode: FakeTensorMode) -> tuple[Any, ...]:
    return tuple(mode.from_tensor(part) if isinstance(part, Tensor) else part for part in parts)


def check_ops(calls: Iterator[Call]) -> None:
    """Compare what the ops return with their fakes."""
    mode = FakeTensorMode()
    for op, arguments in calls:
        real = op(*arguments)
        with mode:
            fake = op(*as_fakes(arguments, mode))
        assert describe(fake) == describe(real), (op, describe(arguments))


def check_implementations(calls: Iterator[Call]) -> None:
    """Compare what the functions inside the ops return for tensors of the meta device with the fakes of the ops."""
    for op, arguments in calls:
        real = _dispatch.implementations[op.default.name().removeprefix("cram::")](*arguments)
        assert describe(op(*arguments)) == describe(real), (op, describe(arguments))


each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@each_layout
def test_what_an_op_returns(layout: str, device: torch.device, backend: str) -> None:
    """In the interpreter, where a launch takes long, one shape is enough: the launchers have a test below."""
    check_ops(calls(layout, device, [((2, 2), BF16)]) if backend == "interpreter" else calls(layout, device))


@pytest.fixture
def anywhere(backend: str) -> None:
    """Skip a test in all homes but one, because it has the same result in each."""
    if backend != "reference":
        pytest.skip("the reference's home has it")


@pytest.mark.no_launch
@pytest.mark.usefixtures("anywhere")
@each_layout
def test_what_the_reference_would_return_on_a_gpu(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAM_KERNELS", "reference")
    check_implementations(calls(layout, "meta"))


@pytest.mark.no_launch
@pytest.mark.usefixtures("anywhere")
@each_layout
def test_what_the_launchers_return_on_a_gpu(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAM_KERNELS", "triton")
    monkeypatch.setattr(_dispatch, "_find_obstacle", lambda _: None)
    with record_launches() as launches:
        check_implementations(calls(layout, "meta"))
    assert launches


# --- comparisons of public functions


def public_calls(make: Make) -> Iterator[tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Yield each public function with inputs in a layout."""
    x, weight = make((4, 6, 8)), make((8,))
    target = torch.zeros(4, 6, dtype=torch.int64, device=x.device)
    yield ck.layer_norm, (x, weight)
    yield lambda x, r, w: ck.layer_norm(x, w, residual=r), (x, make((6, 8)), weight)  # it broadcasts
    yield lambda x, r, w: ck.layer_norm(x, w, w, residual=r), (x, make((4, 6, 8)), weight)
    yield lambda x: ck.softmax(x, scale=0.5, mask=x[..., :1] > 0), (x,)
    yield lambda x: ck.cross_entropy(x, target[:, 0]), (make((4, 8)),)
    yield lambda x: ck.cross_entropy(x, target, reduction="none"), (make((4, 5, 6)),)
    for reduction in ("mean", "none"):
        yield (
            lambda x, w, b, how=reduction: ck.linear_cross_entropy(x, w, target[0], bias=b, reduction=how),
            (make((6, 8)), make((5, 8)), make((5,))),
        )
    yield ck.geglu, (x,)
    yield ck.swiglu, (x,)
    yield lambda q, k, angle: ck.rope(q, k, angle, angle), (make((2, 6, 3, 8)), make((2, 6, 1, 8)), make((6, 4)))


def run_with_gradients(function: Callable[..., Any], inputs: tuple[Tensor, ...], autocast: bool) -> tuple[Any, ...]:
    """Return the outputs of a function and the gradients of its inputs."""
    leaves = [part.detach().requires_grad_() for part in inputs]
    with torch.autocast(leaves[0].device.type, torch.bfloat16) if autocast else nullcontext():
        outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = torch.autograd.grad(outputs, leaves, [torch.ones_like(part) for part in outputs], allow_unused=True)
    return *outputs, *grads


@each_layout
@pytest.mark.parametrize("autocast", [False, True])
def test_what_a_public_function_and_its_gradient_return(layout: str, autocast: bool, device: torch.device) -> None:
    for function, inputs in public_calls(maker(layout, torch.float32, device)):
        real = run_with_gradients(function, inputs, autocast)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = run_with_gradients(function, as_fakes(inputs, mode), autocast)
        assert describe(fake) == describe(real), describe(inputs)
