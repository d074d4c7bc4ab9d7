"""A launch of one of our kernels, compiled for a GPU and run by the machine on tensors of the CPU."""

import functools
import re
import struct
from dataclasses import dataclass

import numpy as np
import torch

from bench.kernel_build import KernelSource, compile_kernel, specialise
from cram_kernels._launch import Launch
from proofs.ptx.errors import PtxError
from proofs.ptx.machine import Machine
from proofs.ptx.memory import GlobalMemory, Region
from proofs.ptx.parser import parse
from proofs.ptx.values import UNSIGNED, Array

PARAMETER_BITS = {"u64": 64, "b64": 64, "u32": 32, "b32": 32, "f32": 32, "s32": 32, "s64": 64, "u16": 16, "u8": 8}


@dataclass(frozen=True)
class Code:
    """The PTX of a kernel, and the bytes of shared memory of a program."""

    ptx: str
    shared: int

    @property
    def essence(self) -> str:
        """Return the text without target, version, comments and places in the source."""
        lines = (line.split("//")[0].rstrip() for line in self.ptx.splitlines())
        body = "\n".join(line for line in lines if line and not re.match(r"\s*\.(loc|file|target|version)\b", line))
        return body.partition("\t.section")[0]


@functools.lru_cache(maxsize=256)
def compile_code(source: KernelSource, arch: int) -> Code:
    """Compile a kernel to PTX for a compute capability."""
    compiled = compile_kernel(source, arch)
    return Code(compiled.ptx, compiled.shared)


@functools.lru_cache(maxsize=64)
def build_machine(ptx: str) -> Machine:
    """Parse PTX and make it ready to run."""
    return Machine(parse(ptx))


def run_launch(launch: Launch, arch: int) -> Code:
    """Compile a launch for a compute capability and run it. Returns the code that was run."""
    code = compile_code(specialise(launch), arch)
    run_code(launch, code)
    return code


def run_code(launch: Launch, code: Code) -> None:
    """Run code of a launch on the launch's tensors.

    Raises:
        PtxError: the code did what it must not do, or left an element of a tensor unwritten that it writes to.
    """
    source, machine, memory = specialise(launch), build_machine(code.ptx), GlobalMemory()
    values = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    arguments = [values[name] for name, kind in source.signature if kind != "constexpr"]
    names = [name for name, kind in source.signature if kind != "constexpr"]
    # Behind the arguments Triton passes two pointers to scratch memory, which no kernel of ours uses.
    widths = [PARAMETER_BITS[kind] for kind in machine.program.parameters]
    padded = [*zip(names, arguments, strict=True), *(("scratch", 0) for _ in range(len(widths) - len(names)))]
    parameters = [_encode(name, value, bits, memory) for (name, value), bits in zip(padded, widths, strict=True)]
    machine.run(launch.programs, parameters, memory, code.shared)
    for name, tensor in tensors.items():
        _check_all_written(name, tensor, memory)


def _encode(name: str, value: object, bits: int, memory: GlobalMemory) -> Array:
    """Return the bits of an argument."""
    if isinstance(value, torch.Tensor):
        number = memory.add(name, value)
    elif isinstance(value, float):
        number = int.from_bytes(struct.pack("<f", value), "little")
    elif isinstance(value, int):
        number = value & ((1 << bits) - 1)
    else:
        raise TypeError(f"{name} is neither a tensor nor a number")
    return np.array([number], UNSIGNED[bits])


def _check_all_written(name: str, tensor: torch.Tensor, memory: GlobalMemory) -> None:
    """Refuse a tensor of whose elements some were written and others not."""
    region = next(r for r in memory.regions if r.base <= memory.add(name, tensor) < r.base + max(1, len(r.data)))
    written = _written_offsets(region, tensor.element_size())
    if not len(written):
        return
    offsets = torch.tensor(int(tensor.storage_offset()))
    for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        shape = [1] * tensor.ndim
        shape[dimension] = size
        offsets = offsets + torch.arange(size).view(shape) * stride
    elements = offsets.reshape(-1).numpy()
    missing = elements[~np.isin(elements, written)]
    if len(missing):
        raise PtxError(f"{len(missing)} of {tensor.numel()} elements of {name} were not written")


def _written_offsets(region: Region, size: int) -> Array:
    """Return the numbers of the elements of so many bytes that were written."""
    writes = [access for access in region.accesses if access.written is not None]
    parts = [
        (access.offsets[:, None] // size + np.arange(max(1, access.size // size))).reshape(-1) for access in writes
    ]
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
