"""Runs cases for several GPUs, in several processes, and collects what deviates."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from bench.kernel_build import NO_BF16, specialise
from bench.kernel_check import poisoned_memory
from cram_kernels import _dispatch
from cram_kernels._launch import Launch, redirect_launches
from cram_kernels._settings import Target
from proofs.ptx.cases import Case
from proofs.ptx.errors import PtxError
from proofs.ptx.loss_cases import cross_entropy_cases, linear_cross_entropy_cases
from proofs.ptx.row_cases import gated_cases, layer_norm_cases, rope_cases, softmax_cases
from proofs.ptx.run import Code, build_machine, compile_code, run_code
from proofs.ptx.text_checks import check_text

ARCHS = (75, 80, 90, 120)
TABLES: dict[str, Callable[[str], Iterator[Case]]] = {
    "layer_norm": layer_norm_cases,
    "softmax": softmax_cases,
    "cross_entropy": cross_entropy_cases,
    "linear_cross_entropy": linear_cross_entropy_cases,
    "gated": gated_cases,
    "rope": rope_cases,
}
# A GPU of one multiprocessor: kernels whose programs take several tiles then do so for few rows.
MULTIPROCESSORS = 1


class AlreadyRunError(Exception):
    """The same code has been run for another GPU."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case for one GPU.

    Attributes:
        kernel: of the case.
        dtype: of the case.
        name: of the case.
        arch: compute capability.
        deviation: the largest of all results, each as a share of what it may be; 1 is the limit.
        largest: the largest deviation itself.
        seconds: that the case took.
        problem: why it failed, or nothing.
        same_as: the GPU for which the same code has been run; nothing was run here.
    """

    kernel: str
    dtype: str
    name: str
    arch: int
    deviation: float = 0.0
    largest: float = 0.0
    seconds: float = 0.0
    problem: str = ""
    same_as: int | None = None


@contextmanager
def run_on_cpu(handler: Callable[[Launch], None], target: Target) -> Iterator[None]:
    """Let all ops launch their kernels for a GPU on tensors of the CPU, and give the launches to `handler`."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(_dispatch, "_find_obstacle", lambda device: None))
        stack.enter_context(mock.patch.dict(os.environ, CRAM_KERNELS="triton"))
        stack.enter_context(redirect_launches(handler, target))
        stack.enter_context(poisoned_memory(torch.device("cpu"), 0))
        stack.enter_context(torch.no_grad())
        yield


def run_case(case: Case, archs: list[int], edit: Callable[[Code], Code] | None = None) -> list[Outcome]:
    """Run a case for several GPUs; code that is the same for two is run once.

    Args:
        case: what to call.
        archs: compute capabilities.
        edit: changes the code before it is run.
    """
    outcomes, seen = [], dict[str, int]()
    for arch in archs:
        if case.dtype == "bf16" and arch in NO_BF16:
            continue

        def handle(launch: Launch, arch: int = arch) -> None:
            code = compile_code(specialise(launch), arch)
            code = code if edit is None else edit(code)
            if seen.setdefault(code.essence, arch) != arch:
                raise AlreadyRunError(seen[code.essence])
            check_text(build_machine(code.ptx).program)
            run_code(launch, code)

        start = time.monotonic()
        found: dict[str, Any] = {}
        try:
            with run_on_cpu(handle, Target(arch, MULTIPROCESSORS)):
                checks = list(case.call())
            worst = max(checks, key=lambda check: check.deviation / check.tolerance)
            found |= {"deviation": worst.deviation / worst.tolerance}
            found |= {"largest": max(check.deviation for check in checks)}
            if worst.deviation > worst.tolerance:
                found["problem"] = f"{worst.name} is off by {worst.deviation:.1e}, more than {worst.tolerance:.0e}"
        except AlreadyRunError as same:
            found["same_as"] = same.args[0]
        except (PtxError, ValueError) as error:
            found["problem"] = str(error)
        outcomes.append(Outcome(case.kernel, case.dtype, case.name, arch, seconds=time.monotonic() - start, **found))
    return outcomes


def list_cases(ops: list[str], dtypes: list[str], quick: bool = False) -> list[Case]:
    """Return the cases of some ops and dtypes, in a fixed order."""
    cases = [case for op in ops for dtype in dtypes for case in TABLES[op](dtype)]
    assert len({case.name for case in cases}) == len(cases)
    return [case for case in cases if case.quick or not quick]


def run_cases(cases: list[Case], archs: list[int], jobs: int) -> Iterator[list[Outcome]]:
    """Yield the outcomes of each case, in order, from several processes."""
    if jobs == 1:
        yield from (run_case(case, archs) for case in cases)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _use_one_thread) as pool:
        yield from pool.map(run_case, cases, [archs] * len(cases), chunksize=4)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
