"""`python -m bench.count_kernels`: count what every kernel does as compiled, beside its peers, without a GPU."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.bounds import DRAM_SECONDS, GPUS, LAUNCH_SECONDS, Bounds, Gpu, compute_bounds, needed_in_flight
from bench.count_cases import CALLS, DIRECTIONS, calls_of_ours, least_bytes, list_cases, record_torch
from bench.kernel_build import compile_kernel, specialise
from bench.kernel_cases import DTYPES, KernelCase
from bench.kernel_count import CompiledLaunch, KernelCount, count_launch
from bench.options import choose
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import write_json
from cram_kernels._launch import record_launches
from cram_kernels._settings import Target
from cram_kernels._triton import HAS_TRITON, triton

ABOUT = """Count what every kernel does as compiled, and bound its time. Needs no GPU.

    python -m bench.count_kernels archs=90 ops=layer_norm dtypes=bf16

Each kernel is compiled for a GPU as its launcher would launch it there. One program of the launch is then followed
through the machine code: its jumps, its addresses and what it waits for. The counts are exact; every time is a bound or
a model that follows from the counts, never a measurement. `bench/bounds.py` has the formulas and the assumptions."""


@dataclass
class CountKernelsConfig:
    """What `bench.count_kernels` takes."""

    archs: list[int] = key([90], f"compute capabilities, of {', '.join(map(str, GPUS))}")
    ops: list[str] = key([], f"of {', '.join(CALLS)} (empty: all)")
    dtypes: list[str] = key(["bf16"], f"of {', '.join(DTYPES)}")
    widths: list[int] = key([], "only cases of these widths (empty: all)")
    out: str | None = key(None, "JSON file for the counts (null: none)", path=True)


@dataclass(frozen=True)
class OpCount:
    """What a provider does for one direction of a case.

    Attributes:
        provider: who made the kernels.
        kernels: what each launch does, with its bounds.
        torch_calls: torch's own computations beside them, with their bytes.
    """

    provider: str
    kernels: tuple[tuple[KernelCount, Bounds], ...]
    torch_calls: tuple[tuple[str, int], ...]

    def model(self, gpu: Gpu) -> float:
        """Return the seconds of the model for all launches."""
        others = sum(LAUNCH_SECONDS + size / gpu.copy for _, size in self.torch_calls)
        return others + sum(bounds.model for _, bounds in self.kernels)


def bound_launch(count: KernelCount, gpu: Gpu) -> Bounds:
    """Return the bounds of a counted launch."""
    waves = count.programs / (count.resident * gpu.multiprocessors)
    return compute_bounds(gpu, count.first_bytes, count.instructions, count.special, count.cycles, waves)


def count_ours(case: KernelCase, direction: str, arch: int) -> OpCount:
    """Count our launches for one direction of a case."""
    gpu = GPUS[arch]
    with record_launches(Target(arch, gpu.multiprocessors)) as launches, record_torch() as torch_ops:
        calls_of_ours(case)[direction]()
    counts = []
    for launch in launches:
        source = specialise(launch)
        compiled = compile_kernel(source, arch)
        values = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
        arguments = tuple((kind, values[name]) for name, kind in source.signature if kind != "constexpr")
        grid = (launch.programs, 1, 1)
        count = count_launch(
            CompiledLaunch(source.kernel, compiled.cubin, compiled.shared, source.warps, grid, arguments), arch
        )
        counts.append((count, bound_launch(count, gpu)))
    return OpCount("ours", tuple(counts), tuple(torch_ops.calls))


# --- the table


def describe_assumptions(arch: int) -> str:
    """Return a line with what is assumed of a GPU."""
    gpu = GPUS[arch]
    return (
        f"sm_{arch}, {gpu.name}: {gpu.multiprocessors} multiprocessors at {gpu.clock / 1e9:.2f} GHz, copy"
        f" {gpu.copy / 1e12:.2f} TB/s, DRAM latency {DRAM_SECONDS * 1e9:.0f} ns, so that"
        f" {needed_in_flight(gpu) / 1024:.0f} KB must be in flight a multiprocessor;"
        f" {LAUNCH_SECONDS * 1e6:.0f} us a launch"
    )


HEAD = (
    f"  {'':10} {'kernel':28} {'model':>7} = {'memory':>7} {'issue':>7} {'special':>7} {'latency':>7} us | "
    "bytes/least again MB | instr special an element | regs programs warps KB in flight a multiprocessor | "
    "barriers shuffles a row | waves, waits"
)


def describe_count(count: KernelCount, bounds: Bounds, case: KernelCase, direction: str, gpu: Gpu) -> str:
    """Return the line of one launch."""
    elements = case.rows * case.width
    times = (bounds.memory, bounds.issue, bounds.special, bounds.latency)
    share = count.first_bytes / least_bytes(case, direction)
    on_chip = min(count.resident, -(-count.programs // gpu.multiprocessors))
    waves = count.programs / (count.resident * gpu.multiprocessors)
    marks = "".join((f" {count.spills} spills" if count.spills else "", " guesses" if count.unknown else ""))
    return (
        f"{count.kernel.strip('_').removesuffix('_kernel')[:28]:28} {1e6 * bounds.model:7.1f} = "
        + " ".join(f"{1e6 * time:7.1f}" for time in times)
        + f"    | {share:11.3f} {count.again_bytes / 1e6:8.1f} |"
        f" {32 * count.instructions / elements:5.1f} {32 * count.special / elements:7.2f}            |"
        f" {count.registers:4} {on_chip:8} {on_chip * count.warps:5} {count.in_flight / 1024:5.0f}"
        f"                            | {count.barriers / count.warps / case.rows:8.2f}"
        f" {count.shuffles / case.rows:8.2f}       | {waves:5.2f} {count.dram_waits:5}{marks}"
    )


def print_op(op: OpCount, case: KernelCase, direction: str, gpu: Gpu) -> None:
    """Print the lines of a provider."""
    for count, bounds in op.kernels:
        print(f"  {op.provider:10} {describe_count(count, bounds, case, direction, gpu)}", flush=True)
    if len(op.kernels) + len(op.torch_calls) > 1:
        names = "".join(f", {name} of {size / 1e6:.1f} MB" for name, size in op.torch_calls)
        total = len(op.kernels) + len(op.torch_calls)
        print(f"  {op.provider:10} {f'{total} launches':28} {1e6 * op.model(gpu):7.1f}{names}", flush=True)


def main(words: list[str]) -> int:
    """Count what the words ask for.

    Raises:
        CramError: Triton is not installed.
    """
    config = read_words(CountKernelsConfig, words)
    if not HAS_TRITON:
        raise CramError("Triton is not installed: without it no kernel can be compiled.")
    archs = [int(arch) for arch in choose("archs", list(map(str, config.archs)), map(str, GPUS))]
    ops, dtypes = choose("ops", config.ops, CALLS), choose("dtypes", config.dtypes, DTYPES)
    cases = [case for op in ops for case in list_cases(op, dtypes) if not config.widths or case.width in config.widths]
    results: list[dict[str, Any]] = []
    for arch in archs:
        print(f"\n{describe_assumptions(arch)}. Bounds and a model, never measurements.\n{HEAD}")
        for case in cases:
            for direction in DIRECTIONS:
                if direction not in calls_of_ours(case):
                    continue
                print(f"{case.name} {direction}")
                op = count_ours(case, direction, arch)
                print_op(op, case, direction, GPUS[arch])
                results.append(describe(op, case, direction, arch))
    if config.out is not None:
        write_json(Path(config.out), {"triton": triton.__version__, "counts": results})
    return 0


def describe(op: OpCount, case: KernelCase, direction: str, arch: int) -> dict[str, Any]:
    """Return a count as plain values, for a file."""
    return {
        "arch": arch,
        "case": case.name,
        "direction": direction,
        "provider": op.provider,
        "least_bytes": least_bytes(case, direction),
        "model": op.model(GPUS[arch]),
        "torch_calls": op.torch_calls,
        "kernels": [asdict(count) | {"bounds": asdict(bounds)} for count, bounds in op.kernels],
    }


if __name__ == "__main__":
    run_door(main, CountKernelsConfig, ABOUT)
