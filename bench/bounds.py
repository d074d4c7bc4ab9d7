"""What a GPU can do at most, and the bounds that follow for a counted launch. A bound is never a measurement.

    memory    first-touch bytes / bandwidth of a copy
    issue     instructions of all warps / (multiprocessors x 4 schedulers x clock)
    special   32 x special-function instructions / (multiprocessors x 16 a cycle x clock)
    latency   waves x time that one warp of a program needs alone, with every wait for DRAM
    model     (memory^4 + max(issue, special)^4 + latency^4)^(1/4) + 2 us

The model is not a bound. Kernels are compared by it, because a kernel that is near two of the bounds is slower
than either.

Sources: number of multiprocessors, boost clock and bandwidth: NVIDIA's data sheets. The bandwidth of a copy is taken as
90% of the data sheet's, as measured on the H100 (3.0 of 3.35 TB/s). Limits of a multiprocessor and operations a cycle:
CUDA programming guide, tables "Technical Specifications per Compute Capability" and "Throughput of Native Arithmetic
Instructions". Latency of DRAM: 650 ns under load on the H100, twice what an idle GPU shows (arXiv:2402.13499, table 5);
the same is assumed for the others. Latency of L2: about 270 cycles in the same table.
"""

from dataclasses import dataclass

SCHEDULERS = 4
SPECIAL_A_CYCLE = 16
LAUNCH_SECONDS = 2e-6
DRAM_SECONDS = 650e-9
L2_CYCLES = 270.0
REGISTERS = 65_536  # of a multiprocessor, the same on all
RESERVED_SHARED = 1024  # bytes that the system takes for each program


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: of the model whose numbers stand here.
        multiprocessors: how many.
        clock: boost, in Hz.
        copy: bytes read and written by a large copy, a second.
        warps: most on a multiprocessor.
        programs: most on a multiprocessor.
        shared: bytes of shared memory of a multiprocessor.
    """

    name: str
    multiprocessors: int
    clock: float
    copy: float
    warps: int
    programs: int
    shared: int


GPUS = {
    80: Gpu("A100 80 GB", 108, 1.41e9, 0.9 * 2039e9, 64, 32, 164 << 10),
    86: Gpu("RTX 3090", 82, 1.70e9, 0.9 * 936e9, 48, 16, 100 << 10),
    89: Gpu("RTX 4090", 128, 2.52e9, 0.9 * 1008e9, 48, 24, 100 << 10),
    90: Gpu("H100 SXM", 132, 1.70e9, 3.0e12, 64, 32, 228 << 10),
    120: Gpu("RTX 5090", 170, 2.41e9, 0.9 * 1792e9, 48, 24, 100 << 10),
}


@dataclass(frozen=True)
class Bounds:
    """The bounds of a launch and the model, in seconds."""

    memory: float
    issue: float
    special: float
    latency: float
    model: float

    @property
    def largest(self) -> str:
        """Return the name of the largest bound."""
        return max(("memory", "issue", "special", "latency"), key=lambda name: getattr(self, name))


def count_resident(gpu: Gpu, warps: int, registers: int, shared: int) -> int:
    """Return how many programs fit on a multiprocessor; registers are given to warps in units of 256."""
    of_a_warp = -(-32 * registers // 256) * 256
    limits = (
        gpu.programs,
        gpu.warps // warps,
        REGISTERS // of_a_warp // warps,
        gpu.shared // (shared + RESERVED_SHARED),
    )
    return max(1, min(limits))


def needed_in_flight(gpu: Gpu) -> float:
    """Return the bytes on their way for a multiprocessor that keep the memory busy: latency x bandwidth."""
    return DRAM_SECONDS * gpu.copy / gpu.multiprocessors


def compute_bounds(
    gpu: Gpu, first_bytes: float, instructions: float, special: float, cycles: float, waves: float
) -> Bounds:
    """Return the bounds of a launch.

    Args:
        gpu: the GPU.
        first_bytes: bytes of all programs, each sector once.
        instructions: of all warps of all programs.
        special: of these, special functions.
        cycles: of one warp alone.
        waves: programs / programs that run at a time.
    """
    memory = first_bytes / gpu.copy
    issue = instructions / (gpu.multiprocessors * SCHEDULERS * gpu.clock)
    special_time = 32 * special / (gpu.multiprocessors * SPECIAL_A_CYCLE * gpu.clock)
    latency = max(1.0, waves) * cycles / gpu.clock
    model = (memory**4 + max(issue, special_time) ** 4 + latency**4) ** 0.25 + LAUNCH_SECONDS
    return Bounds(memory, issue, special_time, latency, model)
