"""Prints counts and bounds: a line for each launch, and one for the op where there are several."""

from bench.bounds import DRAM_SECONDS, GPUS, LAUNCH_SECONDS, needed_in_flight
from bench.count_cases import least_bytes
from bench.count_ops import BoundLaunch, OpCount
from bench.kernel_cases import KernelCase

HEAD = (
    "  provider kernel                          model =  memory   issue special latency | bytes  again |"
    " instr special | regs CTAs warps in flight | barriers shuffles | waves waits wide\n"
    "                                              us                                  | /least   MB |  an element   |"
    "   a multiprocessor    KB |       a row       |"
)


def describe_assumptions(arch: int) -> str:
    """Return a line with what is assumed of a GPU."""
    gpu = GPUS[arch]
    return (
        f"sm_{arch}, {gpu.name}: {gpu.multiprocessors} multiprocessors at {gpu.clock / 1e9:.2f} GHz, copy"
        f" {gpu.copy / 1e12:.2f} TB/s, DRAM latency {DRAM_SECONDS * 1e9:.0f} ns (so that"
        f" {needed_in_flight(gpu) / 1024:.0f} KB must be in flight a multiprocessor),"
        f" {LAUNCH_SECONDS * 1e6:.0f} us a launch"
    )


def describe_launch(launch: BoundLaunch, case: KernelCase, direction: str, arch: int) -> str:
    """Return the line of one launch."""
    count, bounds, gpu = launch.count, launch.bounds, GPUS[arch]
    elements = case.rows * case.width
    times = (bounds.memory, bounds.issue, bounds.special, bounds.latency)
    on_chip = min(count.resident, -(-count.programs // gpu.multiprocessors))
    waves = count.programs / (count.resident * gpu.multiprocessors)
    marks = "".join((f" {count.spills} spills" if count.spills else "", " guesses" if count.guesses else ""))
    return (
        f"{count.kernel.strip('_').removesuffix('_kernel')[:28]:28} {1e6 * bounds.model:8.1f} = "
        + " ".join(f"{1e6 * time:7.1f}" for time in times)
        + f" | {count.first_bytes / least_bytes(case, direction):5.3f} {count.again_bytes / 1e6:6.0f} |"
        f" {32 * count.instructions / elements:5.1f} {32 * count.special / elements:7.2f} |"
        f" {count.registers:4} {on_chip:4} {on_chip * count.warps:5} {count.in_flight / 1024:9.0f} |"
        f" {count.barriers / count.warps / case.rows:8.2f} {count.shuffles / case.rows:8.2f} |"
        f" {waves:5.2f} {count.dram_waits:5} {count.wide_share:4.0%}{marks}"
    )


def print_op(op: OpCount, case: KernelCase, direction: str) -> None:
    """Print the lines of a provider."""
    for launch in op.launches:
        print(f"  {op.provider:8} {describe_launch(launch, case, direction, op.arch)}", flush=True)
    total = len(op.launches) + len(op.torch_calls)
    if total > 1:
        names = "".join(f", {name} of {size / 1e6:.1f} MB" for name, size in op.torch_calls)
        print(f"  {op.provider:8} {f'{total} launches':28} {1e6 * op.model:8.1f}{names}", flush=True)


def print_comparison(counts: list[OpCount]) -> None:
    """Print how ours compares with the fastest peer and with the build before, by the model."""
    ours = next((op for op in counts if op.provider == "ours"), None)
    peers = [op for op in counts if op.provider not in ("ours", "before")]
    before = next((op for op in counts if op.provider == "before"), None)
    if ours is None:
        return
    parts = []
    if peers:
        best = min(peers, key=lambda op: op.model)
        parts.append(f"{ours.model / best.model:.2f} of {best.provider}")
    if before:
        parts.append(f"{ours.model / before.model:.2f} of before")
        old, new = (sum(launch.count.instructions for launch in op.launches) for op in (before, ours))
        parts.append(f"{new / old:.2f} of its instructions" if old else "")
    if parts:
        print(f"  {'':8} ours: {', '.join(filter(None, parts))}", flush=True)
