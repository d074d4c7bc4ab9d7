"""The inputs and calls of a case for one provider, and the comparison of what it gives with float64."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.kernel_cases import DTYPES, OPS, KernelCase, Tensors
from bench.kernel_providers import Provider
from bench.kernel_timing import Call

# Of the difference's norm in that of the right answer, and of its largest entry in the largest right one.
RELATIVE = {"fp32": 1e-4, "fp16": 4e-3, "bf16": 2e-2}
LARGEST = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 6e-2}


@dataclass
class InputSet:
    """Tensors of a call, the names of those with a gradient, and the gradients of its results."""

    tensors: Tensors
    leaves: tuple[str, ...]
    upstream: tuple[Tensor, ...]

    def leaf_tensors(self) -> list[Tensor]:
        """Those with a gradient."""
        return [self.tensors[name] for name in self.leaves]


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    """One result or several, as several."""
    return results if isinstance(results, tuple) else (results,)


def make_inputs(case: KernelCase, provider: Provider, device: torch.device) -> InputSet:
    """Fresh random inputs in the provider's layout."""
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
    """Gradients of the leaves; `again` keeps what another backward pass needs."""
    return torch.autograd.grad(as_tuple(results), inputs.leaf_tensors(), inputs.upstream, retain_graph=again)


def cast_upstream(results: Any, inputs: InputSet) -> None:
    """Cast the gradients of the results to the dtypes that this provider's results have."""
    inputs.upstream = tuple(grad.to(part.dtype) for part, grad in zip(as_tuple(results), inputs.upstream, strict=True))


def make_call(provider: Provider, sets: list[InputSet], direction: str) -> Call:
    """A call of the provider on the input set of a given number: forward, backward, or both."""
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
    """Within the block new memory holds NaN: on a CPU torch fills it, on a GPU it is what the allocator has left."""
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
    """Elements of a tensor of which a check has several in float64."""
    return torch.cuda.get_device_properties(device).total_memory // 160 if device.type == "cuda" else 1 << 24


def check_provider(case: KernelCase, provider: Provider, device: torch.device) -> dict[str, Any]:
    """Compare results and gradients with float64, at as many of the case's rows as that has memory for."""
    case = case.shrink(count_checked_elements(device))
    inputs = make_inputs(case, provider, device)
    right = compute_exactly(case, provider, inputs)
    with poisoned_memory(device, 8 * case.tensor_bytes):
        results = provider.function(*inputs.tensors.values())
        found = [part.detach().clone() for part in as_tuple(results)]  # a backward pass may write there
        if not provider.forward_only:
            cast_upstream(results, inputs)
            found += compute_gradients(results, inputs)
    if len(found) != len(right):
        raise ValueError(f"{len(found)} results and gradients instead of {len(right)}")
    errors = [relative_errors(mine, other) for mine, other in zip(found, right, strict=True)]
    relative, largest = (max(column) for column in zip(*errors, strict=True))
    passed = relative <= RELATIVE[case.dtype] and largest <= LARGEST[case.dtype]
    return {"rows": case.rows, "relative": relative, "largest": largest, "passed": passed}


def compute_exactly(case: KernelCase, provider: Provider, inputs: InputSet) -> list[Tensor]:
    """Results and gradients by torch in float64, of the provider's own tensors."""
    wide = {
        name: (part.detach().double() if part.is_floating_point() else part).requires_grad_(name in inputs.leaves)
        for name, part in inputs.tensors.items()
    }
    yardstick = InputSet(wide, inputs.leaves, tuple(grad.double() for grad in inputs.upstream))
    results = as_tuple(OPS[case.op].function(*provider.restore(wide).values()))
    right = [part.detach() for part in results]
    return right if provider.forward_only else [*right, *compute_gradients(results, yardstick)]


def relative_errors(found: Tensor, right: Tensor) -> tuple[float, float]:
    """The difference's norm over that of the right answer, and the same of the largest entries; infinite for NaN."""
    if found.shape != right.shape:
        raise ValueError(f"shape {tuple(found.shape)} instead of {tuple(right.shape)}")
    difference = found.double() - right
    figures = [difference.norm() / right.norm(), difference.abs().max() / right.abs().max()]
    return tuple(float("inf") if figure.isnan() else float(figure) for figure in figures)  # type: ignore[return-value]
