"""Every op does what `torch.library` expects: right fakes, no aliases, whole graphs, and clear errors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import cram_kernels as ck

Inputs = tuple[Any, ...]


def floats(*shape: int, device: Any = "cpu") -> torch.Tensor:
    return torch.randn(*shape, device=device, requires_grad=True)


def integers(rows: int, device: Any = "cpu") -> torch.Tensor:
    return torch.zeros(rows, dtype=torch.int64, device=device)


def angles(device: Any = "cpu") -> torch.Tensor:
    return torch.randn(3, 2, device=device)


# A public function, and a function that makes inputs for it on a device.
CASES: dict[str, tuple[Callable[..., Any], Callable[[Any], Inputs]]] = {
    "layer_norm": (ck.layer_norm, lambda d: (floats(3, 8, device=d), floats(8, device=d))),
    "layer_norm with residual": (
        lambda x, r, w: ck.layer_norm(x, w, residual=r),
        lambda d: (floats(3, 8, device=d), floats(3, 8, device=d), floats(8, device=d)),
    ),
    "softmax": (lambda x: ck.softmax(x, scale=0.5), lambda d: (floats(3, 8, device=d),)),
    "masked softmax": (
        lambda x, m: ck.softmax(x, mask=m),
        lambda d: (floats(3, 8, device=d), torch.ones(3, 8, dtype=torch.bool, device=d)),
    ),
    "cross_entropy": (ck.cross_entropy, lambda d: (floats(3, 8, device=d), integers(3, device=d))),
    "cross_entropy of rows": (
        lambda x, t: ck.cross_entropy(x, t, reduction="none"),
        lambda d: (floats(3, 8, device=d), integers(3, device=d)),
    ),
    "linear_cross_entropy": (
        ck.linear_cross_entropy,
        lambda d: (floats(3, 8, device=d), floats(5, 8, device=d), integers(3, device=d)),
    ),
    "linear_cross_entropy of rows": (
        lambda h, w, t: ck.linear_cross_entropy(h, w, t, reduction="none"),
        lambda d: (floats(3, 8, device=d), floats(5, 8, device=d), integers(3, device=d)),
    ),
    "geglu": (ck.geglu, lambda d: (floats(3, 8, device=d),)),
    "swiglu": (ck.swiglu, lambda d: (floats(3, 8, device=d),)),
    "rope": (
        ck.rope,
        lambda d: (floats(3, 2, 4, device=d), floats(3, 1, 4, device=d), angles(d), angles(d)),
    ),
}
each = pytest.mark.parametrize("name", CASES)


def outputs(name: str, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    computed = CASES[name][0](*inputs)
    return computed if isinstance(computed, tuple) else (computed,)


def gradients(computed: tuple[torch.Tensor, ...], inputs: Inputs) -> tuple[torch.Tensor, ...]:
    expected = [part for part in inputs if part.requires_grad]
    return torch.autograd.grad(
        [part.sin() for part in computed], expected, [torch.ones_like(part) for part in computed]
    )


@pytest.mark.no_launch  # a compiled graph may launch without this process's count
@each
def test_a_whole_graph_compiles_with_its_backward(name: str, device: torch.device) -> None:
    inputs = CASES[name][1](device)
    compiled = torch.compile(CASES[name][0], fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()
    computed = compiled(*inputs)
    computed = computed if isinstance(computed, tuple) else (computed,)
    torch.testing.assert_close(computed, outputs(name, inputs))
    torch.testing.assert_close(gradients(computed, inputs), gradients(outputs(name, inputs), inputs))


@pytest.mark.no_launch
@each
def test_fake_cuda_tensors_give_the_shapes_of_real_ones(name: str) -> None:
    real = outputs(name, CASES[name][1]("cpu"))
    with FakeTensorMode(), torch.no_grad():
        fake = outputs(name, tuple(part.detach() for part in CASES[name][1]("cuda")))
    assert [(f.shape, f.dtype, f.device.type) for f in fake] == [(r.shape, r.dtype, "cuda") for r in real]


@pytest.mark.no_launch
@each
def test_gradients_on_the_meta_device_have_the_shapes_of_real_ones(name: str) -> None:
    inputs = CASES[name][1]("meta")
    expected = [part for part in inputs if part.requires_grad]
    for grad, part in zip(gradients(outputs(name, inputs), inputs), expected, strict=True):
        assert (grad.shape, grad.dtype, grad.device.type) == (part.shape, part.dtype, "meta")


@each
def test_a_second_derivative_is_refused(name: str, device: torch.device) -> None:
    inputs = CASES[name][1](device)
    expected = [part for part in inputs if part.requires_grad]
    computed = outputs(name, inputs)
    grads = torch.autograd.grad([part.sin().sum() for part in computed], expected, create_graph=True)
    with pytest.raises(RuntimeError, match=r"can be differentiated once, not twice"):
        torch.autograd.grad(sum(grad.sum() for grad in grads), expected)


class Recorder(TorchDispatchMode):
    """Records the calls of our ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Inputs]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Inputs = (), kwargs: Any = None) -> Any:
        if op.namespace == "cram":
            self.calls.append((op, tuple(a.clone() if isinstance(a, torch.Tensor) else a for a in args)))
        return op(*args, **(kwargs or {}))


@each
def test_opcheck_of_every_op_that_a_step_calls(name: str, device: torch.device) -> None:
    inputs = CASES[name][1](device)
    with Recorder() as recorder:
        gradients(outputs(name, inputs), inputs)
    assert recorder.calls
    for op, args in recorder.calls:
        forward = not op.name().endswith("_backward")
        floating = [isinstance(a, torch.Tensor) and a.is_floating_point() for a in args]
        torch.library.opcheck(
            op, tuple(a.requires_grad_() if f and forward else a for a, f in zip(args, floating, strict=True))
        )


def as_tuple(results: Any) -> tuple[torch.Tensor | None, ...]:
    return results if isinstance(results, tuple) else (results,)


def describe(part: torch.Tensor) -> tuple[Any, ...]:
    return part.shape, part.dtype, part.stride()


@each
def test_fakes_have_the_strides_of_real_results_whatever_those_of_the_inputs(name: str, device: torch.device) -> None:
    def swap_last_strides(part: torch.Tensor) -> torch.Tensor:
        if part.ndim < 2:
            return part
        return part.detach().mT.contiguous().mT.requires_grad_(part.requires_grad)

    inputs = tuple(swap_last_strides(part) for part in CASES[name][1](device))
    with Recorder() as recorder:
        gradients(outputs(name, inputs), inputs)
    for op, args in recorder.calls:
        with FakeTensorMode() as mode:
            fake = op(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args))
        real = op(*args)
        for fake_result, real_result in zip(as_tuple(fake), as_tuple(real), strict=True):
            if real_result is None:
                assert fake_result is None, op.name()
            else:
                assert describe(fake_result) == describe(real_result), op.name()


@each
def test_vmap_maps_the_function_over_stacked_inputs(name: str, device: torch.device) -> None:
    function, make = CASES[name]
    several = [tuple(part.detach() for part in make(device)) for _ in range(3)]
    stacked = tuple(torch.stack(parts) for parts in zip(*several, strict=True))
    mapped = torch.func.vmap(function)(*stacked)
    mapped = mapped if isinstance(mapped, tuple) else (mapped,)
    for index, inputs in enumerate(several):
        torch.testing.assert_close(tuple(part[index] for part in mapped), outputs(name, inputs))


@pytest.mark.no_launch
def test_inductor_compiles_the_code_around_the_ops() -> None:
    """This runs on a CPU, where the ops compute the reference."""

    def block(x: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        y, s = ck.layer_norm(x * 2, residual=x)  # type: ignore[misc]
        hidden = ck.geglu(torch.cat([y + 1, s], -1)) * ck.softmax(y).sum(-1, keepdim=True)
        return ck.linear_cross_entropy(hidden, weight, target) + ck.cross_entropy(hidden @ weight.t(), target)

    inputs = (floats(6, 8), floats(5, 8), integers(6))
    torch._dynamo.reset()
    computed = torch.compile(block, fullgraph=True)(*inputs)
    expected = block(*inputs)
    torch.testing.assert_close(computed, expected)
    torch.testing.assert_close(gradients((computed,), inputs), gradients((expected,), inputs))
