"""Records what Triton's JIT is asked to launch, as if there were a GPU, so that kernels of others can be counted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from bench.bounds import GPUS, REGISTERS
from bench.kernel_build import CompiledKernel, specialise
from bench.kernel_count import CompiledLaunch
from cram_kernels._launch import Launch
from cram_kernels._settings import LaunchSettings
from cram_kernels._triton import triton

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class JitLaunch:
    """A launch of any Triton kernel: its grid, its arguments and constants by name, and the options of the compiler."""

    kernel: Any
    grid: Grid
    values: dict[str, Any]
    options: dict[str, Any]


Recorded = list[list[JitLaunch]]  # for each launch, the alternatives among which an autotuner would choose


def compile_launch(launch: JitLaunch, arch: int) -> CompiledLaunch:
    """Compile a launch as the JIT would, for a GPU of a compute capability."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernel
    warps = launch.options.get("num_warps", 4)
    # `specialise` reads the constants by name, and the arguments too.
    source = specialise(Launch(kernel, 1, (), launch.values, LaunchSettings(1, 1, warps)))
    place = {name: (index,) for index, name in enumerate(kernel.arg_names)}
    unit = ASTSource(
        kernel,
        dict(source.signature),
        {place[name]: value for name, value in source.constants},
        {place[name]: [["tt.divisibility", 16]] for name in source.aligned},
    )
    compiled = triton.compile(unit, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps} | launch.options)
    code = CompiledKernel(compiled.asm["ptx"], compiled.asm["cubin"], compiled.metadata.shared)
    arguments = tuple((kind, launch.values[name]) for name, kind in source.signature if kind != "constexpr")
    return CompiledLaunch(kernel.__name__, code.cubin, code.shared, warps, launch.grid, arguments)


def without_memory(value: Any) -> Any:
    """Return a tensor of the meta device with the layout of a fake tensor; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    with unset_fake_temporarily():
        storage = torch.empty(value.storage_offset() + last + 1, dtype=value.dtype, device="meta")
        return storage.as_strided(value.shape, value.stride(), value.storage_offset())


def _read_grid(grid: Any, values: dict[str, Any]) -> Grid:
    sizes = tuple(grid(values) if callable(grid) else grid)
    return (*sizes, 1, 1, 1)[:3]


def fake_properties(arch: int) -> SimpleNamespace:
    """Return what torch would tell about a GPU of a compute capability."""
    gpu = GPUS[arch]
    return SimpleNamespace(
        name=gpu.name,
        major=arch // 10,
        minor=arch % 10,
        multi_processor_count=gpu.multiprocessors,
        regs_per_multiprocessor=REGISTERS,
        max_threads_per_multi_processor=32 * gpu.warps,
        shared_memory_per_multiprocessor=gpu.shared,
        warp_size=32,
        total_memory=80 << 30,
        gcnArchName="",
    )


@contextmanager
def as_if_on(arch: int) -> Iterator[None]:
    """Answer questions about the GPU within the block as if there were one."""
    properties = fake_properties(arch)
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "device": lambda _: nullcontext(),
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (properties.major, properties.minor),
        "get_device_name": lambda *_: properties.name,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        yield


@contextmanager
def record_jit(arch: int) -> Iterator[Recorded]:
    """Record launches of Triton kernels within the block, instead of carrying them out.

    Tensors must be fake ones of a GPU. What would wait for the GPU's numbers gets plausible ones: `item()` is 1,
    comparisons are true.
    """
    recorded: Recorded = []

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool = False, **named: Any) -> None:
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | named
        options = {name: values.pop(name) for name in ("num_warps", "num_stages") if name in values}
        values = {name: without_memory(value) for name, value in values.items() if name in kernel.arg_names}
        launch = JitLaunch(kernel, _read_grid(grid, values), values, options)
        if choices is None:
            recorded.append([launch])
        else:
            choices.append(launch)

    choices: list[JitLaunch] | None = None

    def tune(tuner: Any, *arguments: Any, **named: Any) -> None:
        nonlocal choices
        choices = []
        for config in tuner.configs:
            tuner.fn.run(*arguments, **(named | config.all_kwargs()))
        recorded.append(choices)
        choices = None

    with ExitStack() as stack:
        stack.enter_context(as_if_on(arch))
        stack.enter_context(patch.object(triton.runtime.JITFunction, "run", run))
        stack.enter_context(patch.object(triton.runtime.Autotuner, "run", tune))
        stack.enter_context(patch.object(torch.library, "wrap_triton", lambda kernel: kernel))
        stack.enter_context(patch.object(Tensor, "item", lambda _: 1))
        stack.enter_context(patch.object(Tensor, "__bool__", lambda _: True))
        stack.enter_context(patch.object(torch, "equal", lambda *_: True))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield recorded


def fake(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a fake tensor of a GPU; within `record_jit`."""
    return torch.empty(shape, dtype=dtype, device="cuda")
