"""What a launch compiles to: the code that Triton's JIT would make, for any GPU, without a GPU."""

import importlib
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.compile_cases import LauncherCall
from cram_kernels._launch import Launch, record_launches
from cram_kernels._settings import Target
from cram_kernels._triton import triton

# Multiprocessors of a GPU of each compute capability: RTX 2080 Ti, A100, RTX 3090, RTX 4090, H100, B200, RTX 5090.
MULTIPROCESSORS = {75: 68, 80: 108, 86: 82, 89: 128, 90: 132, 100: 148, 120: 170}
NO_BF16 = {75}
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.bool: "*i1",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class KernelSource:
    """What the JIT compiles for a launch, as plain values that can be sent to another process."""

    module: str
    kernel: str
    signature: tuple[tuple[str, str], ...]  # the type of every parameter; that of constants is `constexpr`
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[str, ...]  # parameters that are divisible by 16
    warps: int


@dataclass(frozen=True)
class CompiledKernel:
    """The code of a kernel for one GPU: as PTX text and as a cubin, and the bytes of shared memory of a program."""

    ptx: str
    cubin: bytes
    shared: int


@dataclass(frozen=True)
class KernelBuild:
    """A kernel to be compiled: the call and the launch that need it, what the JIT compiles, and for which GPUs."""

    call: LauncherCall
    launch: Launch
    source: KernelSource
    archs: list[int]

    @property
    def label(self) -> str:
        """Return kernel, shape, dtype and launch settings."""
        s = self.launch.settings
        name = self.source.kernel.strip("_").removesuffix("_kernel")
        return f"{name:22} {self.call.shape:26} {self.call.dtype} {f'{s.rows}x{s.block} {s.warps}w':12}"


def specialise(launch: Launch) -> KernelSource:
    """Return what Triton's JIT would compile for a launch on newly allocated tensors, which are aligned.

    The JIT turns None and integers that are 1 into constants. It also compiles in which pointers and integers are
    divisible by 16.
    """
    kernel = launch.kernel
    values = dict(zip(kernel.arg_names, launch.arguments, strict=False)) | launch.constants
    signature, constants, aligned = {}, {}, []
    for parameter in kernel.params:
        name, value = parameter.name, values[parameter.name]
        free = parameter.do_not_specialize
        whole = isinstance(value, int) and not isinstance(value, bool)
        if parameter.is_constexpr or value is None or (whole and value == 1 and not free):
            signature[name], constants[name] = "constexpr", value
            continue
        signature[name] = parameter.annotation_type or _type_of(value)
        divisible = value % 16 == 0 if whole else isinstance(value, torch.Tensor) and value.data_ptr() % 16 == 0
        if divisible and not free and not parameter.do_not_specialize_on_alignment:
            aligned.append(name)
    return KernelSource(
        kernel.fn.__module__,
        kernel.__name__,
        tuple(signature.items()),
        tuple(constants.items()),
        tuple(aligned),
        launch.settings.warps,
    )


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def record_calls(calls: Iterable[LauncherCall], archs: Iterable[int]) -> list[KernelBuild]:
    """Record the launches of all calls for GPUs of some compute capabilities; those without bf16 leave out its calls.

    Launches for which the JIT would compile the same source are listed once, with all GPUs that need it.
    """
    archs, builds = list(archs), dict[KernelSource, KernelBuild]()
    for call in calls:
        for arch in archs:
            if call.dtype == "bf16" and arch in NO_BF16:
                continue
            with record_launches(Target(arch, MULTIPROCESSORS[arch])) as launches:
                call.run()
            for launch in launches:
                source = specialise(launch)
                build = builds.setdefault(source, KernelBuild(call, launch, source, []))
                if arch not in build.archs:
                    build.archs.append(arch)
    return list(builds.values())


def compile_kernel(source: KernelSource, arch: int) -> CompiledKernel:
    """Compile for a compute capability, such as 90 for 9.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(source.module), source.kernel)
    place = {name: (index,) for index, name in enumerate(kernel.arg_names)}
    unit = ASTSource(
        kernel,
        dict(source.signature),
        {place[name]: value for name, value in source.constants},
        {place[name]: [["tt.divisibility", 16]] for name in source.aligned},
    )
    compiled = triton.compile(unit, target=GPUTarget("cuda", arch, 32), options={"num_warps": source.warps})
    return CompiledKernel(compiled.asm["ptx"], compiled.asm["cubin"], compiled.metadata.shared)


def disassemble(cubin: bytes, *options: str) -> tuple[str, str]:
    """Return the resource usage in the header of a cubin, and its instructions as nvdisasm prints them with options."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, text = (
            subprocess.run([tools / tool, *words, file.name], capture_output=True, text=True, check=True).stdout
            for tool, *words in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c", *options))
        )
    return usage, text
