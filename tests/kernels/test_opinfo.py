"""torch's own samples of its functions, where our arguments can express them, contiguous and not."""

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
    """Return torch's list of its functions.

    The module is private and may move. It imports a package that is not needed here.
    """
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
    """Ours normalises one dimension, so several are flattened into one."""
    depth = len(shape)

    def flat(part: Any) -> Any:
        return None if part is None else part.flatten(-depth)

    def our_function(x: torch.Tensor, weight: Any, bias: Any) -> Any:
        return ck.layer_norm(flat(x), flat(weight), flat(bias), eps=eps)

    return our_function, (x, weight, bias), lambda x, weight, bias: flat(F.layer_norm(x, shape, weight, bias, eps))


def softmax(x: torch.Tensor, dim: int, dtype: Any = None) -> Expressed | None:
    """Ours is over the last dimension and takes no dtype. A scalar does not have a dimension."""
    if dtype is not None or x.ndim == 0:
        return None
    return lambda x: ck.softmax(x.movedim(dim, -1)).movedim(-1, dim), (x,), lambda x: torch.softmax(x, dim)


def cross_entropy(x: torch.Tensor, target: torch.Tensor, weight: Any = None, **rest: Any) -> Expressed | None:
    """Ours takes class indices only, and no weights of classes."""
    if weight is not None or target.is_floating_point():
        return None

    def our_function(x: torch.Tensor) -> torch.Tensor:
        losses = ck.cross_entropy(x.movedim(1, -1).flatten(0, -2), target.flatten(), **rest)
        return losses.view(target.shape) if losses.ndim else losses

    return our_function, (x,), lambda x: F.cross_entropy(x, target, **rest)


def linear_cross_entropy(
    hidden: torch.Tensor,
    layer: torch.Tensor,
    target: torch.Tensor,
    linear_bias: Any = None,
    weight: Any = None,
    options: Any = None,
    **rest: Any,
) -> Expressed | None:
    """Ours takes rows, so a single position becomes a row. The weight of the layer must have two dimensions."""
    if weight is not None or target.is_floating_point() or layer.ndim != 2:
        return None
    chunk_rows = getattr(options, "batch_chunk_size", None)

    def our_function(hidden: torch.Tensor, layer: torch.Tensor, bias: Any) -> torch.Tensor:
        rows, targets = hidden.view(-1, hidden.shape[-1]) if hidden.ndim == 1 else hidden, target.flatten()
        losses = ck.linear_cross_entropy(rows, layer, targets, bias=bias, chunk_rows=chunk_rows, **rest)
        return losses.view(target.shape) if losses.ndim else losses

    def torch_function(hidden: torch.Tensor, layer: torch.Tensor, bias: Any) -> torch.Tensor:
        return F.cross_entropy(F.linear(hidden, layer, bias), target, **rest)

    return our_function, (hidden, layer, linear_bias), torch_function


EXPRESS: dict[str, Callable[..., Expressed | None]] = {
    "nn.functional.layer_norm": layer_norm,
    "native_layer_norm": layer_norm,
    "softmax": softmax,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.linear_cross_entropy": linear_cross_entropy,
}


def samples(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[Expressed]:
    """Yield the samples of all variants that ours can express, each contiguous and not."""
    for info in (info for info in opinfos() if info.name == name):
        for sample in info.sample_inputs(device, dtype, requires_grad=True):
            for which in (sample, sample.noncontiguous()):
                expressed = EXPRESS[name](which.input, *which.args, **which.kwargs)
                if expressed is not None:
                    yield expressed


def leaf(part: Any, dtype: torch.dtype) -> Any:
    """Return a leaf with the values of a tensor, and with its strides where the dtype stays."""
    return None if part is None else part.detach().to(dtype).requires_grad_()


def compare(our_function: Function, inputs: Tensors, torch_function: Function) -> None:
    """Compare values and gradients of all inputs with torch in float64."""
    inputs_of_ours = [leaf(part, part.dtype) for part in inputs if part is not None]
    tolerance = TOLERANCE[inputs_of_ours[0].dtype]
    wide_inputs = [leaf(part, torch.float64) for part in inputs_of_ours]

    def call(function: Function, parts: list[Any]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        values = iter(parts)
        value = function(*(None if part is None else next(values) for part in inputs))
        return value, torch.autograd.grad(value, parts, torch.ones_like(value).cumsum(0) if value.ndim else None)

    (computed, computed_grads), (expected, expected_grads) = (
        call(our_function, inputs_of_ours),
        call(torch_function, wide_inputs),
    )
    for left, right in zip((computed, *computed_grads), (expected, *expected_grads), strict=True):
        assert left.shape == right.shape
        torch.testing.assert_close(left.double(), right, atol=tolerance, rtol=tolerance, equal_nan=True)


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
    for our_function, inputs, torch_function in samples(name, device, dtype):
        compare(our_function, inputs, torch_function)
        count += 1
    print(f"{name}: {count} samples, half of them not contiguous")
    assert count >= 2 * LEAST[name]
