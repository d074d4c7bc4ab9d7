"""`python -m bench.compile_kernels`: compile every kernel ahead of time for seven generations of GPU, without a GPU."""

import multiprocessing
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.compile_cases import CALLS, DTYPES, STATISTICS_ONLY
from bench.kernel_build import KernelBuild, KernelSource, compile_kernel, disassemble, record_calls
from bench.options import choose
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import write_json
from cram.machine.device import cores
from cram_kernels._triton import HAS_TRITON, triton

ABOUT = """Compile every kernel, as its launcher would launch it, for seven generations of GPU. Needs no GPU.

    python -m bench.compile_kernels
    python -m bench.compile_kernels archs=80,90 ops=layer_norm,softmax dtypes=bf16 shapes=main

The launchers run on tensors without memory, and their launches are recorded. Each is compiled as Triton's JIT would
compile it: with the same signature, hints, constants and warps. These bars are read from the machine code:

- No register spills.
- Where rows are aligned to 16 bytes, global loads and stores of 16 bytes or more move at least a third of the bytes.
  The rest are masks, targets and numbers of a row. Instructions are counted once, also in loops: `bench.count_kernels`
  follows the loops, and has stricter bars.
- Shared memory stays within the limit of a program on that GPU.

Prints a line for each kernel and shape, with the registers of a thread for each GPU generation. Exit status 1 if a
kernel misses a bar."""

# Shared memory that one program may have, in bytes, from NVIDIA's table of compute capabilities.
SHARED_LIMIT = {
    75: 64 << 10,
    80: 163 << 10,
    86: 99 << 10,
    89: 99 << 10,
    90: 227 << 10,
    100: 227 << 10,
    120: 99 << 10,
}


@dataclass
class CompileKernelsConfig:
    """What `bench.compile_kernels` takes."""

    archs: list[int] = key([], f"compute capabilities, of {', '.join(map(str, SHARED_LIMIT))} (empty: all)")
    ops: list[str] = key([], f"of {', '.join(CALLS)} (empty: all)")
    dtypes: list[str] = key([], f"of {', '.join(DTYPES)} (empty: all)")
    shapes: Literal["all", "main"] = key("all", "main: one shape of each kernel")
    jobs: int | None = key(None, "processes that compile (null: one a core)", "processes", least=1, most=1024)
    out: str | None = key(None, "JSON file for the table (null: none)", path=True)


_INSTRUCTION = re.compile(r"\b(LDG|STG|LDL|STL|LDGSTS)((?:\.\w+)*)\b")
_WIDTHS = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


@dataclass(frozen=True)
class MachineCode:
    """What the machine code of a kernel uses. Instructions are counted once, even within a loop."""

    registers: int
    stack: int
    shared: int
    spills: int
    load_bytes: int
    wide_load_bytes: int
    store_bytes: int
    wide_store_bytes: int


CodeByArch = dict[int, MachineCode]  # by compute capability


def compile_source(source: KernelSource, arch: int) -> MachineCode:
    """Compile for a compute capability and read the machine code."""
    compiled = compile_kernel(source, arch)
    usage, text = disassemble(compiled.cubin, "--no-dataflow")
    used = {name: int(number) for name, number in re.findall(r"\b(REG|STACK):(\d+)", usage)}
    return MachineCode(used["REG"], used["STACK"], compiled.shared, **count_instructions(text))


def count_instructions(disassembly: str) -> dict[str, int]:
    """Count spills, and the bytes of a thread's global loads and stores: in all, and by 16 bytes or more at once."""
    counts = dict.fromkeys(("spills", "load_bytes", "wide_load_bytes", "store_bytes", "wide_store_bytes"), 0)
    for opcode, modifiers in _INSTRUCTION.findall(disassembly):
        if opcode in ("LDL", "STL"):
            counts["spills"] += 1
            continue
        width = next((_WIDTHS[part] for part in modifiers.split(".") if part in _WIDTHS), 4)
        kind = "store" if opcode == "STG" else "load"
        counts[f"{kind}_bytes"] += width
        counts[f"wide_{kind}_bytes"] += width if width >= 16 else 0
    return counts


def find_missed_bars(build: KernelBuild, arch: int, code: MachineCode) -> list[str]:
    """Return the bars that a kernel misses on a GPU."""
    missed = []
    if code.spills:
        missed.append(f"{code.spills} spills")
    if code.shared > SHARED_LIMIT[arch]:
        missed.append(f"{code.shared} bytes of shared memory")
    if build.call.aligned:
        if 3 * code.wide_load_bytes < code.load_bytes:
            missed.append("narrow loads")
        if 3 * code.wide_store_bytes < code.store_bytes and build.source.kernel not in STATISTICS_ONLY:
            missed.append("narrow stores")
    return missed


def compile_all(builds: list[KernelBuild], jobs: int) -> Iterator[CodeByArch]:
    """Yield the code of each build, by GPU. With several jobs, other processes compile."""
    pairs = [(build.source, arch) for build in builds for arch in build.archs]
    with ExitStack() as stack:
        spread: Any = map
        if jobs > 1:
            pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
            spread = stack.enter_context(pool).map
        codes = iter(spread(compile_source, *zip(*pairs, strict=True))) if pairs else iter(())
        for build in builds:
            yield {arch: next(codes) for arch in build.archs}


def print_table(
    builds: list[KernelBuild], archs: list[int], compiled: Iterable[CodeByArch]
) -> tuple[list[CodeByArch], list[str]]:
    """Print the table while kernels are compiled. Returns the code, and a line for each kernel that misses a bar."""
    head = f"{'kernel':22} {'shape':26} type tile, warps | "
    print(f"{head}{'  '.join(f'sm_{arch:<3}' for arch in archs)}  registers; ! misses a bar, - is not launched there")
    compiled_codes, failures = [], []
    for build, codes in zip(builds, compiled, strict=True):
        compiled_codes.append(codes)
        missed = {arch: find_missed_bars(build, arch, code) for arch, code in codes.items()}
        failures += [f"{build.label} sm_{arch}: {', '.join(bars)}" for arch, bars in missed.items() if bars]
        cells = (f"{codes[arch].registers if arch in codes else '-'}{'!' * bool(missed.get(arch))}" for arch in archs)
        print(f"{build.label}| " + "  ".join(f"{cell:<6}" for cell in cells), flush=True)
    return compiled_codes, failures


def main(words: list[str]) -> int:
    """Compile what the words ask for. Returns 1 if a kernel misses a bar.

    Raises:
        CramError: Triton is not installed.
    """
    config = read_words(CompileKernelsConfig, words)
    if not HAS_TRITON:
        raise CramError("Triton is not installed: without it no kernel can be compiled.")
    archs = [int(arch) for arch in choose("archs", list(map(str, config.archs)), map(str, SHARED_LIMIT))]
    ops, dtypes = choose("ops", config.ops, CALLS), choose("dtypes", config.dtypes, DTYPES)
    calls = (call for op in ops for dtype in dtypes for call in CALLS[op](dtype))
    builds = record_calls((call for call in calls if call.main or config.shapes == "all"), archs)
    codes, failures = print_table(builds, archs, compile_all(builds, config.jobs or cores()))
    counts = f"{len(builds)} kernels, {sum(map(len, codes))} compilations, {len(failures)} miss a bar"
    print("\n".join([f"triton {triton.__version__}: {counts}", *failures]))
    if config.out is not None:
        write_json(Path(config.out), {"triton": triton.__version__, "kernels": list(map(describe, builds, codes))})
    return 1 if failures else 0


def describe(build: KernelBuild, codes: CodeByArch) -> dict[str, Any]:
    """Return a kernel and its machine code as plain values, for a file."""
    return {
        "kernel": build.source.kernel,
        "shape": build.call.shape,
        "dtype": build.call.dtype,
        "settings": asdict(build.launch.settings),
        **{f"sm_{arch}": asdict(code) for arch, code in codes.items()},
    }


if __name__ == "__main__":
    run_door(main, CompileKernelsConfig, ABOUT)
