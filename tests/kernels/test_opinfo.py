"""torch's own samples of its functions, those that our arguments can express, contiguous and not."""

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import TestCase, mock

import pytest
import torch
from torch.nn import functional as F

import cram_kernels as ck

Tensors = tuple[Any, ...]
Function = Callable[..., torch.Tensor]
Expressed = tuple[Function, Tensors, Function]  # ours, the inputs of both, and torch's
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}

# Samples that ours can express in torch 2.13; linear_cross_entropy has fewer before it, or none.
LEAST = {
    "nn.functional.layer_norm": 6,
    "native_layer_norm": 20,
    "softmax": 6,
    "nn.functional.cross_entropy": 8,
    "nn.functional.linear_cross_entropy": 64 if torch.__version__ >= (2, 13) else 1,
}


def opinfos() -> list[Any]:
    """torch's list of its functions. The module is private, may move, and imports a package that is not needed here."""
    stand_in = ModuleType("expecttest")
    stand_in.TestCase = TestCase  # type: ignore[attr-defined]
    missing = importlib.util.find_spec("expecttest") is None
    if missing:
        sys.modules["expecttest"] = stand_in
    try:
        with mock.patch("torch.backends.disable_global_flags"):  # which would hold for every test after this
            module = importlib.import_module("torch.testing._internal.common_methods_invocations")
        return list(module.op_db)
    except (ImportError, AttributeError) as error:
        pytest.skip(f"torch {torch.__version__} keeps its samples elsewhere: {error}")
    finally:
        if missing:
            sys.modules.pop("expecttest", None)


def layer_norm(x: torch.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Expressed:
    """Several normalised dimensions are one."""
    depth = len(shape)

    def flat(part: Any) -> Any:
        return None if part is None else part.flatten(-depth)

    def ours(x: torch.Tensor, weight: Any, bias: Any) -> Any:
        return ck.layer_norm(flat(x), flat(weight), flat(bias), eps=eps)

    return ours, (x, weight, bias), lambda x, weight, bias: flat(F.layer_norm(x, shape, weight, bias, eps))


def softmax(x: torch.Tensor, dim: int, dtype: Any = None) -> Expressed | None:
    """Ours is over the last dimension, and has no dtype; a scalar has no dimension."""
    if dtype is not None or x.ndim == 0:
        return None
    return lambda x: ck.softmax(x.movedim(dim, -1)).movedim(-1, dim), (x,), lambda x: torch.softmax(x, dim)


def cross_entropy(x: torch.Tensor, target: torch.Tensor, weight: Any = None, **rest: Any) -> Expressed | None:
    """Ours is of rows and class indices, with no weight of the classes."""
    if weight is not None or target.is_floating_point():
        return None

    def ours(x: torch.Tensor) -> torch.Tensor:
        losses = ck.cross_entropy(x.movedim(1, -1).flatten(0, -2), target.flatten(), **rest)
        return losses.view(target.shape) if losses.ndim else losses

    return ours, (x,), lambda x: F.cross_entropy(x, target, **rest)


def linear_cross_entropy(
    hidden: torch.Tensor,
    layer: torch.Tensor,
    target: torch.Tensor,
    linear_bias: Any = None,
    weight: Any = None,
    options: Any = None,
    **rest: Any,
) -> Expressed | None:
    """A single position is a row; a chunk is a chunk; the weight of the layer has two dimensions."""
    if weight is not None or target.is_floating_point() or layer.ndim != 2:
        return None
    chunk_rows = getattr(options, "batch_chunk_size", None)

    def ours(hidden: torch.Tensor, layer: torch.Tensor, bias: Any) -> torch.Tensor:
        rows, targets = hidden.view(-1, hidden.shape[-1]) if hidden.ndim == 1 else hidden, target.flatten()
        losses = ck.linear_cross_entropy(rows, layer, targets, bias=bias, chunk_rows=chunk_rows, **rest)
        return losses.view(target.shape) if losses.ndim else losses

    def theirs(hidden: torch.Tensor, layer: torch.Tensor, bias: Any) -> torch.Tensor:
        return F.cross_entropy(F.linear(hidden, layer, bias), target, **rest)

    return ours, (hidden, layer, linear_bias), theirs


EXPRESS: dict[str, Callable[..., Expressed | None]] = {
    "nn.functional.layer_norm": layer_norm,
    "native_layer_norm": layer_norm,
    "softmax": softmax,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.linear_cross_entropy": linear_cross_entropy,
}


def samples(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[Expressed]:
    """All variants' samples that ours can express, each contiguous and not."""
    for info in (info for info in opinfos() if info.name == name):
        for sample in info.sample_inputs(device, dtype, requires_grad=True):
            for which in (sample, sample.noncontiguous()):
                expressed = EXPRESS[name](which.input, *which.args, **which.kwargs)
                if expressed is not None:
                    yield expressed


def leaf(part: Any, dtype: torch.dtype) -> Any:
    """A leaf with the values and, where the dtype is kept, the strides of a tensor."""
    return None if part is None else part.detach().to(dtype).requires_grad_()


def compare(ours: Function, inputs: Tensors, theirs: Function) -> None:
    """Values and gradients of all inputs, against torch in float64."""
    mine = [leaf(part, part.dtype) for part in inputs if part is not None]
    tolerance = TOLERANCE[mine[0].dtype]
    wide = [leaf(part, torch.float64) for part in mine]

    def call(function: Function, parts: list[Any]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        given = iter(parts)
        value = function(*(None if part is None else next(given) for part in inputs))
        return value, torch.autograd.grad(value, parts, torch.ones_like(value).cumsum(0) if value.ndim else None)

    (found, found_grads), (right, right_grads) = call(ours, mine), call(theirs, wide)
    for one, other in zip((found, *found_grads), (right, *right_grads), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, atol=tolerance, rtol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", EXPRESS)
def test_samples_in_fp32(name: str, device: torch.device) -> None:
    run_samples(name, device, torch.float32)


@pytest.mark.no_launch  # the reference computes in float64
@pytest.mark.parametrize("name", EXPRESS)
def test_samples_in_fp64(name: str, device: torch.device) -> None:
    run_samples(name, device, torch.float64)


def run_samples(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Compare all samples of a function, and count them."""
    if not any(info.name == name for info in opinfos()):
        pytest.skip(f"torch {torch.__version__} has no samples of {name}")
    count = 0
    for ours, inputs, theirs in samples(name, device, dtype):
        compare(ours, inputs, theirs)
        count += 1
    print(f"{name}: {count} samples, half of them not contiguous")
    assert count >= 2 * LEAST[name]
