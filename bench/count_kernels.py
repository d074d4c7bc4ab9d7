"""`python -m bench.count_kernels`: count what every kernel does as compiled, beside its peers, without a GPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bench.bounds import GPUS
from bench.count_against import read_against
from bench.count_bars import find_missed_bars
from bench.count_cases import CALLS, DIRECTIONS, least_bytes, list_cases
from bench.count_ops import OpCount, count_ours, count_peer
from bench.count_peers import PACKAGES, is_installed
from bench.count_table import HEAD, describe_assumptions, print_comparison, print_op
from bench.kernel_cases import DTYPES, KernelCase
from bench.kernels import summarise_error
from bench.options import choose
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import write_json
from cram_kernels._triton import HAS_TRITON, triton

PROVIDERS = ("ours", *PACKAGES, "inductor")
ABOUT = """Count what every kernel does as compiled, and bound its time. Needs no GPU.

    python -m bench.count_kernels
    python -m bench.count_kernels archs=90,86 ops=layer_norm dtypes=bf16 widths=768 against=../before out=counts.json

Each kernel is compiled for a GPU as its launcher would launch it there. One program of the launch is then followed
through the machine code: its jumps, its addresses and what it waits for. Peers that are installed (Liger-Kernel,
flash-attn, torch's compiler) are counted in the same way, at their own launch settings.

Counts are exact. Every time is a bound or a model that follows from them, never a measurement. `bench/bounds.py` has
the formulas and the assumptions.

Exit status 1 if ours misses a bar: a spill, narrow accesses to aligned rows, more than 2% above the least bytes; for
sm_90 also an issue bound above the memory bound, or less than 32 KB in flight a multiprocessor."""


@dataclass
class CountKernelsConfig:
    """What `bench.count_kernels` takes."""

    archs: list[int] = key([90], f"compute capabilities, of {', '.join(map(str, GPUS))}")
    ops: list[str] = key([], f"of {', '.join(CALLS)} (empty: all)")
    dtypes: list[str] = key(["bf16"], f"of {', '.join(DTYPES)}")
    widths: list[int] = key([], "only cases of these widths (empty: all)")
    rows: list[int] = key([], "only cases of so many rows (empty: all)")
    providers: list[str] = key([], f"of {', '.join(PROVIDERS)} (empty: those that are installed)")
    against: str | None = key(None, "another checkout, or a file of counts, to compare with (null: none)", path=True)
    out: str | None = key(None, "JSON file for the counts (null: none)", path=True)


Key = tuple[int, str, str]  # compute capability, case, direction


def select_cases(config: CountKernelsConfig) -> list[KernelCase]:
    """Return the cases that are asked for."""
    ops, dtypes = choose("ops", config.ops, CALLS), choose("dtypes", config.dtypes, DTYPES)
    return [
        case
        for op in ops
        for case in list_cases(op, dtypes)
        if (not config.widths or case.width in config.widths) and (not config.rows or case.rows in config.rows)
    ]


def count_case(case: KernelCase, direction: str, arch: int, providers: list[str]) -> Iterator[OpCount]:
    """Yield what each provider does for one direction of a case."""
    for provider in providers:
        op = count_ours(case, direction, arch) if provider == "ours" else try_peer(provider, case, direction, arch)
        if op is not None:
            yield op


def try_peer(peer: str, case: KernelCase, direction: str, arch: int) -> OpCount | None:
    """Count a peer. Whatever fails in its package or its code leaves it out, with a line that says so."""
    try:
        return count_peer(peer, case, direction, arch)
    except Exception as error:  # a peer may raise anything
        print(f"  {peer:8} could not be counted: {summarise_error(error)}", flush=True)
        return None


def main(words: list[str]) -> int:
    """Count what the words ask for. Returns 1 if ours misses a bar.

    Raises:
        CramError: Triton is not installed.
    """
    config = read_words(CountKernelsConfig, words)
    if not HAS_TRITON:
        raise CramError("Triton is not installed: without it no kernel can be compiled.")
    archs = [int(arch) for arch in choose("archs", list(map(str, config.archs)), map(str, GPUS))]
    installed = [name for name in PROVIDERS if name not in PACKAGES or is_installed(name)]
    providers = choose("providers", config.providers, PROVIDERS, default=installed)
    cases = select_cases(config)
    before: dict[Key, dict[str, Any]] = {}
    if config.against is not None:
        words = [word for word in words if not word.startswith(("against=", "out=", "providers="))]
        counts = read_against(Path(config.against), words)
        before = {(c["arch"], c["case"], c["direction"]): c for c in counts if c["provider"] == "ours"}
    results: list[dict[str, Any]] = []
    missed: list[str] = []
    for arch in archs:
        print(f"\n{describe_assumptions(arch)}\nBounds and a model, never measurements.\n{HEAD}")
        for case in cases:
            for direction in DIRECTIONS:
                counts = count_and_print(case, direction, arch, providers, before)
                place = {"case": case.name, "direction": direction, "least_bytes": least_bytes(case, direction)}
                results += [place | op.as_plain() for op in counts]
                missed += [
                    f"{case.name} {direction}, sm_{arch}: {bar}"
                    for op in counts
                    if op.provider == "ours"
                    for bar in find_missed_bars(op, case, direction)
                ]
    print("\n".join(["", f"{len(missed)} bars missed by ours", *missed]))
    if config.out is not None:
        write_json(Path(config.out), {"triton": triton.__version__, "counts": results, "missed": missed})
    return 1 if missed else 0


def count_and_print(
    case: KernelCase, direction: str, arch: int, providers: list[str], before: dict[Key, dict[str, Any]]
) -> list[OpCount]:
    """Count and print one direction of a case."""
    old = before.get((arch, case.name, direction))
    counts: list[OpCount] = []
    for op in chain([OpCount.from_plain(old, "before")] if old else [], count_case(case, direction, arch, providers)):
        if not counts:
            print(f"{case.name} {direction}", flush=True)
        counts.append(op)
        print_op(op, case, direction)
    print_comparison(counts)
    return counts


if __name__ == "__main__":
    run_door(main, CountKernelsConfig, ABOUT)
