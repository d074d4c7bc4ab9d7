"""Counts what a compiled launch does: its instructions, its bytes, its waiting. No GPU is needed."""

import re
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from bench.bounds import DRAM_SECONDS, GPUS, L2_CYCLES, count_resident
from bench.kernel_build import disassemble
from bench.sass.machine import Latencies, Machine, Parameter, Trace
from bench.sass.memory import UNKNOWN_ADDRESS, GlobalMemory, TensorInfo
from bench.sass.program import Program, parse_program, read_constants

# Where launch parameters begin in the bank of constants, by compute capability.
PARAMETERS_AT = {75: 0x160, 80: 0x160, 86: 0x160, 89: 0x160, 90: 0x210, 100: 0x380, 120: 0x380}
NEIGHBOURS = 24  # a multiple of the usual numbers of heads
SIZES = {"i1": 1, "u1": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "fp32": 4}


@dataclass(frozen=True)
class CompiledLaunch:
    """A compiled kernel and how it is launched.

    Attributes:
        kernel: its name.
        cubin: its machine code.
        shared: bytes of shared memory of a program.
        warps: of a program.
        grid: programs in each direction.
        arguments: type and value of each runtime argument, in order; tensors may be on the meta device.
    """

    kernel: str
    cubin: bytes
    shared: int
    warps: int
    grid: tuple[int, int, int]
    arguments: tuple[tuple[str, Any], ...]

    @property
    def programs(self) -> int:
        """Return the size of the grid."""
        return self.grid[0] * self.grid[1] * self.grid[2]


@dataclass(frozen=True)
class KernelCount:
    """What a launch does on a GPU.

    Attributes:
        kernel: its name.
        programs: of the launch.
        warps: of a program.
        registers: of a thread.
        shared: bytes of a program.
        spills: instructions that spill a register.
        resident: programs that fit on a multiprocessor.
        loads: first and repeated bytes of all programs, by tensor. A sector that was touched before should come from
            a cache.
        stores: the same of what is written.
        wide_share: of the bytes that are requested of rows, those of accesses of 16 bytes or more a thread.
        instructions: of all programs, counted once for each warp.
        special: of these, those of the special function units.
        barriers: the same of barriers.
        shuffles: the same of shuffles.
        cycles: of a program's first warp alone.
        dram_waits: how often it waited for DRAM.
        in_flight: most bytes of loads on their way for a multiprocessor, if all resident programs load together.
        unknown: jumps that depend on numbers that were not computed.
    """

    kernel: str
    programs: int
    warps: int
    registers: int
    shared: int
    spills: int
    resident: int
    loads: dict[str, tuple[float, float]]
    stores: dict[str, tuple[float, float]]
    wide_share: float
    instructions: float
    special: float
    barriers: float
    shuffles: float
    cycles: float
    dram_waits: int
    in_flight: int
    unknown: int

    @property
    def guesses(self) -> int:
        """Return how many jumps, and accesses of tensors, depend on numbers that were not computed."""
        return self.unknown + sum(UNKNOWN_ADDRESS in book for book in (self.loads, self.stores))

    @property
    def first_bytes(self) -> float:
        """Return the bytes that DRAM must move."""
        return sum(first for book in (self.loads, self.stores) for first, _ in book.values())

    @property
    def again_bytes(self) -> float:
        """Return the bytes that should come from a cache."""
        return sum(again for book in (self.loads, self.stores) for _, again in book.values())


def describe_tensor(name: str, tensor: torch.Tensor) -> TensorInfo:
    """Return what the count must know about a tensor."""
    itemsize = tensor.element_size()
    # A kernel may use what lies behind a row in the same memory, such as the padding of a chunk's rows.
    span = tensor.untyped_storage().nbytes() - tensor.storage_offset() * itemsize
    distinct = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        distinct *= size if stride else 1
    return TensorInfo(name, span, distinct * itemsize, not tensor.is_floating_point(), itemsize)


def place_arguments(launch: CompiledLaunch, arch: int) -> tuple[list[Parameter], list[TensorInfo]]:
    """Return the launch parameters as the bank of constants holds them, and the tensors that pointers point to."""
    parameters, tensors = [], []
    offset = PARAMETERS_AT[arch]
    for index, (kind, value) in enumerate(launch.arguments):
        size = SIZES.get(kind, 8)
        offset += -offset % size
        if isinstance(value, torch.Tensor):
            tensors.append(describe_tensor(f"{index}", value))
            number = GlobalMemory.base(len(tensors) - 1)
        elif kind == "fp32":
            number = struct.unpack("<I", struct.pack("<f", value))[0]
        else:
            number = int(value) & (1 << 64) - 1
        parameters.append(Parameter(offset, number, size))
        offset += size
    return parameters, tensors


@dataclass(frozen=True)
class _Sample:
    """One program that was run, and for how many it stands."""

    weight: float
    trace: Trace
    memory: GlobalMemory


class _Sampler:
    """Runs programs of a launch."""

    def __init__(self, launch: CompiledLaunch, arch: int, program: Program) -> None:
        self.launch, self.program = launch, program
        self.parameters, self.tensors = place_arguments(launch, arch)
        self.latencies = Latencies(DRAM_SECONDS * GPUS[arch].clock, L2_CYCLES)
        self.cached: frozenset[str] = frozenset()

    def run(self, index: int) -> tuple[Trace, GlobalMemory]:
        """Run the program at a place in the grid."""
        x, y, _ = self.launch.grid
        place = (index % x, index // x % y, index // (x * y))
        machine = Machine(self.program, self.launch.warps, self.parameters, self.tensors, place, self.latencies)
        machine.memory.cached = self.cached
        return machine.run(), machine.memory

    def run_all(self) -> list[_Sample]:
        """Run as many programs as there are kinds.

        Where neighbours differ, because they take different tensors or heads, a row of neighbours stands for all.
        Otherwise all programs do the same, except for those at the end, which have fewer rows or none.
        """
        first = self.run(0)
        last = self.launch.programs - 1
        probes = {min(place, last) for place in (1, 3, last // 2)} - {0, last}
        if all(_signature(*self.run(probe)) == _signature(*first) for probe in probes):
            return self._run_ends(first)
        count = min(NEIGHBOURS, last + 1)
        return [_Sample((last + 1) / count, *self.run(place)) for place in range(count)]

    def _run_ends(self, first: tuple[Trace, GlobalMemory]) -> list[_Sample]:
        """Find by bisection the first program that differs; those behind it are taken to be like the last."""
        most = self.launch.programs - 1
        last = self.run(most)
        if _signature(*first) == _signature(*last):
            return [_Sample(most + 1, *first)]
        low, high, odd = 0, most, last  # program `low` is like the first, `high` is not
        while high - low > 1:
            middle = (low + high) // 2
            found = self.run(middle)
            if _signature(*found) == _signature(*first):
                low = middle
            else:
                high, odd = middle, found
        samples = [_Sample(high, *first), _Sample(1, *odd)]
        return [*samples, _Sample(most - high, *last)] if most > high else samples

    def run_timed(self, samples: list[_Sample]) -> Trace:
        """Run the first program with a warm L2 cache: it holds what all programs together read more than once."""
        sums: Counter[str] = Counter()
        for sample in samples:
            sums.update({name: sample.weight * traffic.first for name, traffic in sample.memory.loads.items()})
        cached = {tensor.name for tensor in self.tensors if sums[tensor.name] > 1.5 * tensor.elements_bytes}
        self.cached = frozenset(cached)
        return self.run(0)[0] if cached else samples[0].trace


def _signature(trace: Trace, memory: GlobalMemory) -> tuple[object, ...]:
    books = (memory.loads, memory.stores)
    return (trace.instructions, *({name: traffic.requested for name, traffic in book.items()} for book in books))


def _sum_traffic(samples: list[_Sample], tensors: list[TensorInfo], is_store: bool) -> dict[str, tuple[float, float]]:
    """Return first-touch bytes and repeated bytes of each tensor, over all programs.

    Together, programs cannot touch more for the first time than the tensor holds.
    """
    held = {tensor.name: tensor.elements_bytes for tensor in tensors}
    sums: dict[str, tuple[float, float]] = {}
    for sample in samples:
        book = sample.memory.stores if is_store else sample.memory.loads
        for name, traffic in book.items():
            first, moved = sums.get(name, (0.0, 0.0))
            sums[name] = (first + sample.weight * traffic.first, moved + sample.weight * traffic.sectors)
    once = {name: min(first, held[name]) if name in held else moved for name, (first, moved) in sums.items()}
    return {name: (once[name], max(0.0, moved - once[name])) for name, (_, moved) in sums.items()}


def _share_wide(memory: GlobalMemory, tensors: list[TensorInfo]) -> float:
    """Return the share of wide accesses to the large tensors. Masks and numbers of a row are small ones."""
    books = (memory.loads, memory.stores)
    used = [tensor for tensor in tensors if any(tensor.name in book for book in books)]
    largest = max((tensor.elements_bytes for tensor in used), default=0)
    names = [tensor.name for tensor in used if 8 * tensor.elements_bytes >= largest]
    traffics = [book[name] for book in books for name in names if name in book]
    return sum(t.wide for t in traffics) / max(1, sum(t.requested for t in traffics))


def count_launch(launch: CompiledLaunch, arch: int) -> KernelCount:
    """Count what a launch does on the GPU of a compute capability."""
    gpu = GPUS[arch]
    usage, text = disassemble(launch.cubin, "-hex")
    registers = int(re.search(r"\bREG:(\d+)", usage)[1])  # type: ignore[index]
    program = parse_program(text, read_constants(launch.cubin))
    resident = count_resident(gpu, launch.warps, registers, launch.shared)
    sampler = _Sampler(launch, arch, program)
    samples = sampler.run_all()
    trace, memory = sampler.run_timed(samples), samples[0].memory
    loads, stores = (_sum_traffic(samples, sampler.tensors, is_store) for is_store in (False, True))

    def total(*opcodes: str) -> float:
        return sum(
            sample.weight * number
            for sample in samples
            for name, number in sample.trace.opcodes.items()
            if not opcodes or name.partition(".")[0] in opcodes
        )

    return KernelCount(
        kernel=launch.kernel,
        programs=launch.programs,
        warps=launch.warps,
        registers=registers,
        shared=launch.shared,
        spills=sum(instruction.opcode in ("LDL", "STL") for instruction in program.instructions),
        resident=resident,
        loads=loads,
        stores=stores,
        wide_share=_share_wide(memory, sampler.tensors),
        instructions=total(),
        special=total("MUFU"),
        barriers=total("BAR"),
        shuffles=total("SHFL"),
        cycles=trace.cycles,
        dram_waits=trace.dram_waits,
        in_flight=trace.most_in_flight * min(resident, -(-launch.programs // gpu.multiprocessors)),
        unknown=trace.unknown.total(),
    )
