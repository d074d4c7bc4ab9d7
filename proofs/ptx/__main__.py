"""`python -m proofs.ptx`: run every kernel as compiled for four generations of GPU, without a GPU."""

import re
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.options import choose
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import write_json
from cram.machine.host import cores
from cram_kernels._triton import HAS_TRITON
from proofs.ptx.campaign import ARCHS, TABLES, Outcome, list_cases, run_cases
from proofs.ptx.cases import DTYPES
from proofs.ptx.mutants import find_fault, list_mutants, run_far_rows

ABOUT = """Compile every kernel as its launcher would launch it, and run the compiled PTX on a CPU.

    python -m proofs.ptx
    python -m proofs.ptx ops=layer_norm,rope archs=90 dtypes=bf16 quick=true

Results are compared with torch in float64. The machine that runs the text refuses accesses outside of the tensors of a
call or not aligned, races between threads, values that were never written, and opcodes that it does not know. Then
faults are put into kernels on purpose, and each must be found. What this cannot show: what ptxas makes of the text, and
the true errors of approximate functions, in whose place stand pseudo-random ones of the documented size.

Prints a line for each kernel and dtype, with the number of cases and the largest deviation, as a share of the largest
entry, for each GPU. Exit status 1 if a case deviates too much or is refused, or a fault is not found."""


@dataclass
class PtxConfig:
    """The keys of this proof."""

    archs: list[int] = key([], f"compute capabilities, of {', '.join(map(str, ARCHS))} (empty: all)")
    ops: list[str] = key([], f"of {', '.join(TABLES)} (empty: all)")
    dtypes: list[str] = key([], f"of {', '.join(DTYPES)} (empty: all)")
    quick: bool = key(False, "run the cases of the tests alone")
    mutants: bool = key(True, "put faults into kernels, and see that they are found")
    jobs: int | None = key(None, "processes (null: one a core)", "processes", least=1, most=1024)
    to: str | None = key(None, "JSON file for the outcome of every case (null: none)", path=True)


def print_rows(outcomes: list[Outcome], archs: list[int]) -> None:
    """Print a line for each kernel among the outcomes of one dtype, and one for each failure."""
    by_kernel = defaultdict[str, list[Outcome]](list)
    for outcome in outcomes:
        by_kernel[outcome.kernel].append(outcome)
    for kernel, rows in by_kernel.items():
        cells = (_describe([row for row in rows if row.arch == arch]) for arch in archs)
        seconds = sum(row.seconds for row in rows)
        print(f"{kernel:22} {rows[0].dtype} | {' | '.join(cells)} | {seconds:6.1f}", flush=True)
    for row in outcomes:
        if row.problem:
            print(f"    FAILED {row.name}, sm_{row.arch}: {row.problem}", flush=True)


def _describe(rows: list[Outcome]) -> str:
    """Return how many cases were run, how many had code that was run for another GPU, and the largest deviation."""
    if not rows:
        return f"{'-':>16}"
    run = [row for row in rows if row.same_as is None]
    largest = f"{max(row.largest for row in run):.1e}" if run else ""
    failed = "!" if any(row.problem for row in rows) else ""
    return f"{f'{len(run)}+{len(rows) - len(run)}':>7} {failed + largest:>8}"


def print_mutants() -> int:
    """Run the faults and print what found each. Returns how many were not found."""
    missed = 0
    for mutant in list_mutants():
        problem = find_fault(mutant)
        found = bool(re.search(mutant.found_by, problem))
        missed += not found
        print(f"{'found ' if found else 'MISSED'} {mutant.name}: {problem or 'nothing was wrong'}", flush=True)
    wide, narrow = run_far_rows(make_narrow=False), run_far_rows(make_narrow=True)
    found = bool(narrow) and not wide
    print(
        f"{'found ' if found else 'MISSED'} row numbers of 32 bits: {wide or narrow or 'nothing was wrong'}", flush=True
    )
    return missed + (not found)


def print_cases(config: PtxConfig, ops: list[str], dtypes: list[str], archs: list[int]) -> list[Outcome]:
    """Run the cases and print the table as it grows."""
    heads = (f"sm_{arch} run+same".rjust(16) for arch in archs)
    print(f"{'kernel':22} type | {' | '.join(heads)} | seconds", flush=True)
    groups = [list_cases([op], [dtype], config.quick) for op in ops for dtype in dtypes]
    results = run_cases([case for group in groups for case in group], archs, config.jobs or cores())
    all_outcomes = []
    for group in groups:
        outcomes = [outcome for _ in group for outcome in next(results)]
        print_rows(outcomes, archs)
        all_outcomes += outcomes
    return all_outcomes


def main(words: list[str]) -> int:
    """Run what the words ask for. Returns 1 if something failed.

    Raises:
        CramError: Triton is not installed.
    """
    config = read_words(PtxConfig, words)
    if not HAS_TRITON:
        raise CramError("Triton is not installed: without it no kernel can be compiled.")
    archs = [int(arch) for arch in choose("archs", list(map(str, config.archs)), map(str, ARCHS))]
    ops, dtypes = choose("ops", config.ops, TABLES), choose("dtypes", config.dtypes, DTYPES)
    start = time.monotonic()
    outcomes = print_cases(config, ops, dtypes, archs)
    missed = print_mutants() if config.mutants else 0
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    run = sum(outcome.same_as is None for outcome in outcomes)
    print(
        f"{len(outcomes)} cases, of which {len(outcomes) - run} had code that was run for another GPU; {failed} failed;"
        f" {missed} faults were not found; {time.monotonic() - start:.0f} s"
    )
    if config.to is not None:
        write_json(Path(config.to), {"cases": [asdict(outcome) for outcome in outcomes], "missed_faults": missed})
    return 1 if failed or missed else 0


if __name__ == "__main__":
    run_door(main, PtxConfig, ABOUT)
