"""Compile every kernel ahead of time, as its launcher would launch it, for seven generations of GPU. Needs no GPU.

    python -m bench.compile_kernels [archs=75,80,86,89,90,100,120] [ops=...] [dtypes=bf16,fp16,fp32]
                                    [shapes=all|main] [jobs=CORES] [out=FILE.json]

The launchers run on tensors without memory and their launches are noted; each becomes what the JIT would make of it:
the same signature, hints, constants and warps. The bars, read from the machine code:

- no register spills
- global loads and stores of 16 bytes or more where rows are aligned to that: they move at least half of the bytes,
  the rest being masks, targets and figures of a row
- shared memory within what a program may have on that GPU

One line a kernel and shape, a column of registers per thread for each GPU generation. Exit status 1 where a bar is
missed.
"""

import importlib
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.compile_cases import CALLS, DTYPES, STATISTICS_ONLY, Call
from cram.files.atomic import write_json
from cram.machine.device import cores
from cram_kernels._launch import Launch, record_launches
from cram_kernels._triton import HAS_TRITON, triton

# Shared memory that one program may have, in bytes, from NVIDIA's table of compute capabilities.
SHARED_LIMIT = {
    75: 64 << 10, 80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10,
}  # fmt: skip
NO_BF16 = {75}
POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float64: "*fp64",
    torch.int64: "*i64", torch.int32: "*i32", torch.bool: "*i1", torch.uint8: "*u8",
}  # fmt: skip
_INSTRUCTION = re.compile(r"\b(LDG|STG|LDL|STL|LDGSTS)((?:\.\w+)*)\b")
_WIDTHS = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


@dataclass(frozen=True)
class Source:
    """What the JIT compiles for a launch, in plain values that another process can take."""

    module: str
    kernel: str
    signature: tuple[tuple[str, str], ...]  # every parameter's type; constants are `constexpr`
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[str, ...]  # parameters that 16 divides
    warps: int


@dataclass(frozen=True)
class Code:
    """What the machine code of a kernel uses; instructions are counted as they stand there."""

    registers: int
    stack: int
    shared: int
    spills: int
    load_bytes: int
    wide_load_bytes: int
    store_bytes: int
    wide_store_bytes: int


Codes = dict[int, Code]  # by compute capability


@dataclass(frozen=True)
class Row:
    """A kernel to be compiled: where it comes from, and what the JIT compiles."""

    call: Call
    launch: Launch
    source: Source

    @property
    def label(self) -> str:
        """Kernel, shape, dtype and launch settings."""
        s = self.launch.settings
        name = self.source.kernel.strip("_").removesuffix("_kernel")
        return f"{name:22} {self.call.shape:26} {self.call.dtype} {f'{s.rows}x{s.block} {s.warps}w':12}"


def specialise(launch: Launch) -> Source:
    """What Triton's JIT would compile for a launch on tensors fresh from the allocator, and so aligned.

    It makes constants of None and of integers that are 1, and knows of pointers and integers whether 16 divides them.
    """
    kernel = launch.kernel
    given = dict(zip(kernel.arg_names, launch.arguments, strict=False)) | launch.constants
    signature, constants, aligned = {}, {}, []
    for parameter in kernel.params:
        name, value = parameter.name, given[parameter.name]
        free = parameter.do_not_specialize
        whole = isinstance(value, int) and not isinstance(value, bool)
        if parameter.is_constexpr or value is None or (whole and value == 1 and not free):
            signature[name], constants[name] = "constexpr", value
            continue
        signature[name] = parameter.annotation_type or _type_of(value)
        divisible = value % 16 == 0 if whole else isinstance(value, torch.Tensor) and value.data_ptr() % 16 == 0
        if divisible and not free and not parameter.do_not_specialize_on_alignment:
            aligned.append(name)
    return Source(
        kernel.fn.__module__, kernel.__name__, tuple(signature.items()), tuple(constants.items()), tuple(aligned),
        launch.settings.warps,
    )  # fmt: skip


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def record(calls: Iterable[Call]) -> list[Row]:
    """The launches of all calls, those that the JIT would take for one only once."""
    rows: dict[Source, Row] = {}
    for call in calls:
        with record_launches() as launches:
            call.run()
        for launch in launches:
            source = specialise(launch)
            rows.setdefault(source, Row(call, launch, source))
    return list(rows.values())


def compile_source(source: Source, arch: int) -> Code:
    """Compile for a compute capability, 90 for 9.0, and read the machine code."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(source.module), source.kernel)
    place = {name: (index,) for index, name in enumerate(kernel.arg_names)}
    unit = ASTSource(
        kernel, dict(source.signature), {place[name]: value for name, value in source.constants},
        {place[name]: [["tt.divisibility", 16]] for name in source.aligned},
    )  # fmt: skip
    compiled = triton.compile(unit, target=GPUTarget("cuda", arch, 32), options={"num_warps": source.warps})
    return read_code(compiled.asm["cubin"], compiled.metadata.shared)


def read_code(cubin: bytes, shared: int) -> Code:
    """Registers and stack from the object's header, loads and stores from its disassembly."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, text = (
            subprocess.run([tools / tool, *options, file.name], capture_output=True, text=True, check=True).stdout
            for tool, *options in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c", "--no-dataflow"))
        )
    used = {name: int(number) for name, number in re.findall(r"\b(REG|STACK):(\d+)", usage)}
    return Code(used["REG"], used["STACK"], shared, **count_instructions(text))


def count_instructions(disassembly: str) -> dict[str, int]:
    """Bytes that a thread's global loads and stores name, those of 16 or more at once, and the number of spills."""
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


def missed_bars(row: Row, arch: int, code: Code) -> list[str]:
    """What a kernel falls short of on a GPU; empty where nothing."""
    missed = []
    if code.spills:
        missed.append(f"{code.spills} spills")
    if code.shared > SHARED_LIMIT[arch]:
        missed.append(f"{code.shared} bytes of shared memory")
    if row.call.aligned:
        if 2 * code.wide_load_bytes < code.load_bytes:
            missed.append("narrow loads")
        if 2 * code.wide_store_bytes < code.store_bytes and row.source.kernel not in STATISTICS_ONLY:
            missed.append("narrow stores")
    return missed


def compile_all(rows: list[Row], archs: list[int], jobs: int) -> Iterator[Codes]:
    """The code of each row in turn, by GPU; made in other processes where there are several jobs."""
    kept = [[arch for arch in archs if arch not in NO_BF16 or row.call.dtype != "bf16"] for row in rows]
    sources = [row.source for row, here in zip(rows, kept, strict=True) for _ in here]
    with ExitStack() as stack:
        spread: Any = map
        if jobs > 1:
            pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
            spread = stack.enter_context(pool).map
        codes = spread(compile_source, sources, [arch for here in kept for arch in here])
        for here in kept:
            yield {arch: next(codes) for arch in here}


def show(rows: list[Row], archs: list[int], compiled: Iterable[Codes]) -> tuple[list[Codes], list[str]]:
    """Print the table as the code comes; returns the code, and what misses a bar, a line each."""
    head = f"{'kernel':22} {'shape':26} type tile, warps | "
    print(f"{head}{'  '.join(f'sm_{arch:<3}' for arch in archs)}  registers a thread; ! misses a bar, - has no bf16")
    found, failures = [], []
    for row, codes in zip(rows, compiled, strict=True):
        found.append(codes)
        missed = {arch: missed_bars(row, arch, code) for arch, code in codes.items()}
        failures += [f"{row.label} sm_{arch}: {', '.join(bars)}" for arch, bars in missed.items() if bars]
        cells = (f"{codes[arch].registers if arch in codes else '-'}{'!' * bool(missed.get(arch))}" for arch in archs)
        print(f"{row.label}| " + "  ".join(f"{cell:<6}" for cell in cells), flush=True)
    return found, failures


def read_words(words: list[str], **defaults: str) -> dict[str, str]:
    """The key=value words over their defaults."""
    asked = dict(defaults)
    for word in words:
        name, _, value = word.partition("=")
        if name not in asked:
            raise SystemExit(f"unknown word {word!r}; the words are {', '.join(f'{key}=' for key in asked)}")
        asked[name] = value
    return asked


def main(words: list[str]) -> int:
    """Compile what the words ask for; 1 where a bar is missed."""
    asked = read_words(
        words, archs=",".join(map(str, SHARED_LIMIT)), ops=",".join(CALLS), dtypes=",".join(DTYPES), shapes="all",
        jobs=str(cores()), out="",
    )  # fmt: skip
    if not HAS_TRITON:
        raise SystemExit("Triton is not installed")
    archs = [int(arch) for arch in asked["archs"].split(",")]
    kinds = [(op, dtype) for op in asked["ops"].split(",") for dtype in asked["dtypes"].split(",")]
    calls = (call for op, dtype in kinds for call in CALLS[op](dtype))
    rows = record(call for call in calls if call.main or asked["shapes"] == "all")
    found, failures = show(rows, archs, compile_all(rows, archs, int(asked["jobs"])))
    counts = f"{len(rows)} kernels, {sum(map(len, found))} compilations, {len(failures)} miss a bar"
    print("\n".join([f"triton {triton.__version__}: {counts}", *failures]))
    if asked["out"]:
        table = [
            {"kernel": row.source.kernel, "shape": row.call.shape, "dtype": row.call.dtype}
            | {"settings": asdict(row.launch.settings)}
            | {f"sm_{arch}": asdict(code) for arch, code in codes.items()}
            for row, codes in zip(rows, found, strict=True)
        ]
        write_json(Path(asked["out"]), {"triton": triton.__version__, "kernels": table})
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
