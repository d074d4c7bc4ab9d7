"""`python -m bench.kernels`: our kernels beside torch, torch.compile and the peers that are installed."""

import gc
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench import kernel_cases
from bench.kernel_cases import OPS, KernelCase, count_flops
from bench.kernel_check import check_provider, make_call, make_inputs
from bench.kernel_providers import DISTRIBUTIONS, PACKAGES, Provider, build_provider, is_installed
from bench.kernel_table import print_case
from bench.kernel_timing import count_input_sets, measure_copy_speed, measure_peak_bytes, time_call
from bench.options import OUT_HELP, choose, results_folder
from bench.timing import describe_machine, write_results
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.machine.device import pick_device
from cram_kernels._launch import launch_counts

ABOUT = """Time our kernels beside torch, torch.compile and the peers that are installed: time, bandwidth, memory.

    python -m bench.kernels
    python -m bench.kernels quick=true ops=layer_norm,softmax providers=ours,eager

The results and gradients of every provider are first compared with float64, in memory that was filled with NaN, so that
values which a provider does not write are found. A provider that raises or is wrong is reported and not timed. Each
timing is done twice, with all other timings between.

Bytes are counted as if every tensor were read or written once. The share beside the bandwidth compares it with a copy
of as many bytes in the same run. The last figure, as in 1.20x, is the time of a peer divided by ours, both timed in the
same way. linear_cross_entropy is timed forward and backward together, because its gradients are made in the forward
pass, and its operations are counted instead of bytes.

On a CPU this times the reference implementation beside torch at small sizes, and no kernel.
Exit status 1 if ours raises or is wrong."""

Result = dict[str, Any]
TURNS = 2
SLOW_TO_COMPILE = ("linear_cross_entropy", "rope")  # not compiled in the quick table
LIMIT, QUICK_LIMIT = 520.0, 165.0  # seconds


@dataclass
class KernelBenchConfig:
    """What `bench.kernels` takes."""

    check_only: bool = key(False, "compare with float64 and do not time")
    quick: bool = key(False, "one shape of each op, within three minutes")
    ops: list[str] = key([], f"of {', '.join(OPS)} (empty: all)")
    providers: list[str] = key([], f"of {', '.join(PACKAGES)} (empty: all that are installed)")
    seconds: float = key(0.12, "length of one measurement, about", "s", above=0, most=60)
    limit: float | None = key(
        None, f"time after which no case begins (null: {LIMIT:.0f}, quick {QUICK_LIMIT:.0f})", "s", above=0, most=1e6
    )
    out: str | None = key(None, OUT_HELP, path=True)


# --- one case


def summarise_error(error: Exception) -> str:
    """Return the type of an error and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:160]}"


def check_providers(case: KernelCase, device: torch.device, names: list[str]) -> tuple[dict[str, Provider], Result]:
    """Build and check the providers of a case.

    Returns:
        The providers that are right, and for each provider what the check found or what went wrong.
    """
    providers: dict[str, Provider] = {}
    results: Result = {}
    for name in names:
        launches_before = launch_counts.total()
        try:
            provider = build_provider(name, case, device)
            if provider is None:
                continue
            check = check_provider(case, provider, device)
        except Exception as error:  # a peer may raise anything
            results[name] = {"error": summarise_error(error), "timings": {}}
            continue
        if not check["passed"]:
            deviation = f"{check['relative']:.1e} of the norm, {check['largest']:.1e} of the largest"
            results[name] = {"error": f"wrong: {deviation}", "timings": {}}
            continue
        providers[name], results[name] = provider, {"check": check, "timings": {}}
        if name == "ours" and device.type == "cuda":
            results[name]["kernels"] = "triton" if launch_counts.total() > launches_before else "reference"
    return providers, results


def run_case(case: KernelCase, device: torch.device, names: list[str], seconds: float, timed: bool = True) -> Result:
    """Check all providers of a case, and time those that are right."""
    op = OPS[case.op]
    providers, results = check_providers(case, device, names)
    result = {"name": case.name, **asdict(case), "flops": count_flops(case), "providers": results}
    result["bytes"] = {direction: op.bytes(case, direction) for direction in op.directions}
    if not timed:
        return result
    gc.collect()
    gc.freeze()  # later collections do not look through what was imported and compiled until here
    sets = count_input_sets(op.bytes(case, "forward") or case.tensor_bytes, device)
    for _ in range(TURNS):
        for name, provider in providers.items():
            time_provider(case, provider, results[name], sets, device, seconds)
        if "ours" in providers:
            time_ours_by_events(case, providers["ours"], results, sets, device, seconds)
    result["copy"] = {
        direction: measure_copy_speed(nbytes, device, seconds)
        for direction, nbytes in result["bytes"].items()
        if nbytes
    }
    return result


def time_provider(
    case: KernelCase,
    provider: Provider,
    result: Result,
    sets: int,
    device: torch.device,
    seconds: float,
    captured: bool = True,
) -> None:
    """Add a timing of each direction to the result of a provider, and the peak memory of both directions together."""
    inputs = [make_inputs(case, provider, device) for _ in range(sets)]
    for direction in OPS[case.op].directions:
        if provider.forward_only and direction != "forward":
            continue
        try:
            call = make_call(provider, inputs, direction)
            timing = time_call(call, sets, device, seconds, captured)
            if direction == "both" and captured:
                result["peak_bytes"] = measure_peak_bytes(call, device)
        except Exception as error:  # a peer may raise anything
            result.setdefault("failed", {})[direction] = summarise_error(error)
            continue
        name = direction if captured else f"{direction} by events"
        result["timings"].setdefault(name, []).append(asdict(timing))


def time_ours_by_events(
    case: KernelCase, ours: Provider, results: Result, sets: int, device: torch.device, seconds: float
) -> None:
    """Time ours by events too, where a peer could not be captured in a graph."""
    ways = {name: {t["how"] for ts in result["timings"].values() for t in ts} for name, result in results.items()}
    if "graph" in ways["ours"] and any("events" in how for name, how in ways.items() if name != "ours"):
        time_provider(case, ours, results["ours"], sets, device, seconds, captured=False)


# --- all cases


def select_cases(config: KernelBenchConfig, device: torch.device) -> list[KernelCase]:
    """Return the cases of the device's table whose op was asked for."""
    gpu_cases = kernel_cases.QUICK if config.quick else kernel_cases.FULL
    cases = gpu_cases if device.type == "cuda" else kernel_cases.SMALL
    ops = choose("ops", config.ops, OPS)
    return [case for case in cases if case.op in ops]


def run_cases(config: KernelBenchConfig, device: torch.device) -> Result:
    """Run the cases until the time is over. The results are written after each case."""
    began = time.monotonic()
    limit = config.limit or (QUICK_LIMIT if config.quick else LIMIT)
    providers = choose("providers", config.providers, PACKAGES)
    installed = [name for name in providers if is_installed(name)]
    absent = [name for name in providers if name not in installed]
    print(f"providers: {', '.join(installed)}{'; not installed: ' if absent else ''}{', '.join(absent)}")
    machine = describe_machine(device, DISTRIBUTIONS)
    results: Result = {"machine": machine, "quick": config.quick, "cases": [], "left_out": []}
    path: Path | None = None
    name = "kernels-check" if config.check_only else "kernels"
    for case in select_cases(config, device):
        if time.monotonic() - began > limit:
            results["left_out"].append(case.name)
            continue
        skipped = {"compile"} if config.quick and case.op in SLOW_TO_COMPILE else set()
        names = [provider for provider in installed if provider not in skipped]
        print(f"\n{time.monotonic() - began:4.0f} s  {case.name} begins: {', '.join(names)}", flush=True)
        try:
            result = run_case(case, device, names, config.seconds, timed=not config.check_only)
        except torch.OutOfMemoryError as error:
            results["left_out"].append(f"{case.name} ({summarise_error(error)})")
            continue
        results["cases"].append(result)
        print_case(result)
        path = write_results(results, results_folder(config.out), f"{name}-{device.type}")
    if results["left_out"]:
        print(f"\nleft out, because the limit is {limit:.0f} s: {', '.join(results['left_out'])}")
    if path is not None:
        write_results(results, path.parent, path.stem)  # once more, with the cases that were left out
        print(f"\n{path}  ({time.monotonic() - began:.0f} s)")
    return results


def main(words: list[str]) -> int:
    """Run the cases that the words ask for. Returns 1 if ours raised or was wrong."""
    config = read_words(KernelBenchConfig, words)
    device = pick_device("auto")
    if device.type != "cuda":
        print("This is a CPU: the reference implementations beside torch at small sizes. No kernel is measured.")
    # A stream of its own, because the default stream cannot be captured in a graph.
    with torch.cuda.stream(torch.cuda.Stream()) if device.type == "cuda" else nullcontext():
        results = run_cases(config, device)
    ours = [case["providers"].get("ours", {}) for case in results["cases"]]
    return 1 if any("error" in result or "failed" in result for result in ours) else 0


if __name__ == "__main__":
    run_door(main, KernelBenchConfig, ABOUT)
