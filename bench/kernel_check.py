"""The inputs and calls of a case for one provider, and the comparison of its results with float64."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.kernel_cases import DTYPES, OPS, KernelCase, Tensors
from bench.kernel_providers import Provider
from bench.kernel_timing import Call

# Largest deviations: the norm of the difference over that of the expected one, and the same of the largest entries.
RELATIVE = {"fp32": 1e-4, "fp16": 4e-3, "bf16": 2e-2}
LARGEST = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 6e-2}


@dataclass
class InputSet:
    """The tensors of a call, the names of those that get a gradient, and the gradients of its results."""

    tensors: Tensors
    leaves: tuple[str, ...]
    upstream: tuple[Tensor, ...]

    def leaf_tensors(self) -> list[Tensor]:
        """Return the tensors that get a gradient."""
        return [self.tensors[name] for name in self.leaves]


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    """Return one result or several as a tuple."""
    return results if isinstance(results, tuple) else (results,)


def make_inputs(case: KernelCase, provider: Provider, device: torch.device) -> InputSet:
    """Make random inputs in the layout of the provider."""
    op = OPS[case.op]
    tensors = provider.adapt(op.make(case, device))
    leaves = provider.leaves or op.leaves
    tensors = {name: part.detach().requires_grad_(name in leaves) for name, part in tensors.items()}
    shapes = {name: torch.empty_like(part, device="meta", requires_grad=False) for name, part in tensors.items()}
    results = as_tuple(op.function(*provider.restore(shapes).values()))
    scalar = all(part.ndim == 0 for part in results)
    upstream = tuple(
        torch.ones((), device=device, dtype=DTYPES[case.dtype])
        if scalar
        else torch.randn(part.shape, device=device, dtype=DTYPES[case.dtype])
        for part in results
    )
    return InputSet(tensors, leaves, upstream)


def compute_gradients(results: Any, inputs: InputSet, again: bool = False) -> tuple[Tensor, ...]:
    """Return the gradients of the leaves. With `again` the graph is kept for another backward pass."""
    return torch.autograd.grad(as_tuple(results), inputs.leaf_tensors(), inputs.upstream, retain_graph=again)


def cast_upstream(results: Any, inputs: InputSet) -> None:
    """Cast the gradients of the results to the dtypes of the results of this provider."""
    inputs.upstream = tuple(grad.to(part.dtype) for part, grad in zip(as_tuple(results), inputs.upstream, strict=True))


def make_call(provider: Provider, sets: list[InputSet], direction: str) -> Call:
    """Return a function that calls the provider on the input set of a number: forward, backward, or both."""
    function: Callable[..., Any] = provider.function
    if direction == "forward":
        return lambda number: function(*sets[number].tensors.values())
    results = [function(*inputs.tensors.values()) for inputs in sets]
    for result, inputs in zip(results, sets, strict=True):
        cast_upstream(result, inputs)
    if direction == "both":
        return lambda number: compute_gradients(function(*sets[number].tensors.values()), sets[number])
    return lambda number: compute_gradients(results[number], sets[number], again=True)


@contextmanager
def poisoned_memory(device: torch.device, nbytes: int) -> Iterator[None]:
    """Make new memory within the block hold NaN. On a CPU torch fills it; on a GPU freed blocks of NaN are reused."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        blocks = [torch.full((nbytes // 4,), float("nan"), device=device)]
        blocks += [torch.full((1 << 16,), float("nan"), device=device) for _ in range(64)]
        del blocks
        if not torch.empty(nbytes // 8, device=device).isnan().all():
            raise RuntimeError("the allocator did not give the poisoned memory back")
        yield
        return
    filling: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), filling.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    filling.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        filling.fill_uninitialized_memory = before[1]


def count_checked_elements(device: torch.device) -> int:
    """Return the most elements of a tensor in a check, which holds several such tensors in float64."""
    return torch.cuda.get_device_properties(device).total_memory // 160 if device.type == "cuda" else 1 << 24


def check_provider(case: KernelCase, provider: Provider, device: torch.device) -> dict[str, Any]:
    """Compare results and gradients with float64, at as many rows of the case as there is memory for."""
    case = case.shrink(count_checked_elements(device))
    inputs = make_inputs(case, provider, device)
    expected = compute_exactly(case, provider, inputs)
    with poisoned_memory(device, 8 * case.tensor_bytes):
        results = provider.function(*inputs.tensors.values())
        computed = [part.detach().clone() for part in as_tuple(results)]  # the backward pass may overwrite them
        if not provider.forward_only:
            cast_upstream(results, inputs)
            computed += compute_gradients(results, inputs)
    if len(computed) != len(expected):
        raise ValueError(f"{len(computed)} results and gradients instead of {len(expected)}")
    errors = [relative_errors(*pair) for pair in zip(computed, expected, strict=True)]
    relative, largest = (max(column) for column in zip(*errors, strict=True))
    passed = relative <= RELATIVE[case.dtype] and largest <= LARGEST[case.dtype]
    return {"rows": case.rows, "relative": relative, "largest": largest, "passed": passed}


def compute_exactly(case: KernelCase, provider: Provider, inputs: InputSet) -> list[Tensor]:
    """Compute results and gradients with torch in float64, from the same tensors."""
    wide = {
        name: (part.detach().double() if part.is_floating_point() else part).requires_grad_(name in inputs.leaves)
        for name, part in inputs.tensors.items()
    }
    wide_inputs = InputSet(wide, inputs.leaves, tuple(grad.double() for grad in inputs.upstream))
    results = as_tuple(OPS[case.op].function(*provider.restore(wide).values()))
    expected = [part.detach() for part in results]
    return expected if provider.forward_only else [*expected, *compute_gradients(results, wide_inputs)]


def relative_errors(computed: Tensor, expected: Tensor) -> tuple[float, float]:
    """Return the norm of the difference over that of the expected one, and the same of the largest entries.

    NaN counts as infinite.
    """
    if computed.shape != expected.shape:
        raise ValueError(f"shape {tuple(computed.shape)} instead of {tuple(expected.shape)}")
    difference = computed.double() - expected
    ratios = [difference.norm() / expected.norm(), difference.abs().max() / expected.abs().max()]
    return tuple(float("inf") if ratio.isnan() else float(ratio) for ratio in ratios)  # type: ignore[return-value]
