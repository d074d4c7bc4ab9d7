"""Our kernels beside torch, torch.compile and the peers that are installed: time, bandwidth, memory.

    python -m bench.kernels [--check] [--quick] [--ops layer_norm,softmax] [--providers ours,eager]
                                  [--seconds 0.12] [--limit 520] [--out bench/results]

Every provider's results and gradients are compared with float64 first, in memory full of NaN so that what it leaves
unwritten shows; that is always done, `--check` or not, and `--check-only` stops there. A provider that raises or is
wrong is reported and not timed. Each timing is done twice, with all the others between.

Bytes are those of a model that reads and writes every tensor once. The copy beside it moved as many bytes in the same
run. The last figure, as in 1.20x, is a peer's time over ours by the same way of timing. linear_cross_entropy is timed
forward and backward together, for its gradients are made in the forward pass, and counted in operations.

On a CPU this is the reference implementation beside torch at small sizes and says nothing of the kernels.
Exit status 1 where ours raises or is wrong.
"""

import argparse
import gc
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import kernel_cases
from bench.kernel_cases import OPS, Case, flops
from bench.kernel_check import check, input_set, make_call
from bench.kernel_providers import DISTRIBUTIONS, PACKAGES, Provider, build, installed
from bench.kernel_timing import Timing, copy_speed, input_sets, peak_bytes, time_call
from bench.timing import machine, write_results
from cram.machine.device import pick_device
from cram_kernels._launch import launch_counts

ROOT = Path(__file__).resolve().parent.parent

Result = dict[str, Any]
TURNS = 2
SLOW_TO_COMPILE = ("linear_cross_entropy", "rope")  # left out of the quick table


def reason(error: Exception) -> str:
    """The first line of an error, with its kind."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:160]}"


def gather(case: Case, device: torch.device, names: list[str]) -> tuple[dict[str, Provider], Result]:
    """The providers of a case that pass the check; and of each what the check found or what went wrong."""
    providers: dict[str, Provider] = {}
    results: Result = {}
    for name in names:
        launched = launch_counts.total()
        try:
            provider = build(name, case, device)
            if provider is None:
                continue
            found = check(case, provider, device)
        except Exception as error:  # a peer may raise anything
            results[name] = {"error": reason(error), "timings": {}}
            continue
        if not found["passed"]:
            wrong = f"wrong: {found['relative']:.1e} of the norm, {found['largest']:.1e} of the largest"
            results[name] = {"error": wrong, "timings": {}}
            continue
        providers[name], results[name] = provider, {"check": found, "timings": {}}
        if name == "ours" and device.type == "cuda":
            results[name]["kernels"] = "triton" if launch_counts.total() > launched else "reference"
    return providers, results


def run_case(case: Case, device: torch.device, names: list[str], seconds: float, timed: bool = True) -> Result:
    """Check all providers of a case and time those that are right."""
    op = OPS[case.op]
    providers, results = gather(case, device, names)
    found = {"name": case.name, **asdict(case), "flops": flops(case), "providers": results}
    found["bytes"] = {direction: op.bytes(case, direction) for direction in op.directions}
    if not timed:
        return found
    gc.collect()
    gc.freeze()  # what was imported and compiled so far is not looked through again
    sets = input_sets(op.bytes(case, "forward") or case.numbers, device)
    for _ in range(TURNS):
        for name, provider in providers.items():
            time_provider(case, provider, results[name], sets, device, seconds)
        if "ours" in providers:
            time_ours_alike(case, providers["ours"], results, sets, device, seconds)
    found["copy"] = {
        direction: copy_speed(nbytes, device, seconds) for direction, nbytes in found["bytes"].items() if nbytes
    }
    return found


def time_provider(
    case: Case, provider: Provider, result: Result, sets: int, device: torch.device, seconds: float,
    captured: bool = True,
) -> None:  # fmt: skip
    """Add a timing of each direction, and the peak memory of both together, to a provider's result."""
    inputs = [input_set(case, provider, device) for _ in range(sets)]
    for direction in OPS[case.op].directions:
        if provider.forward_only and direction != "forward":
            continue
        try:
            call = make_call(provider, inputs, direction)
            timing = time_call(call, sets, device, seconds, captured)
            if direction == "both" and captured:
                result["peak_bytes"] = peak_bytes(call, device)
        except Exception as error:
            result.setdefault("failed", {})[direction] = reason(error)
            continue
        key = direction if captured else f"{direction} by events"
        result["timings"].setdefault(key, []).append(timing.plain())


def time_ours_alike(
    case: Case, ours: Provider, results: Result, sets: int, device: torch.device, seconds: float
) -> None:
    """Time ours by events too, where a peer could not be captured."""
    ways = {name: {t["how"] for ts in result["timings"].values() for t in ts} for name, result in results.items()}
    if "graph" in ways["ours"] and any("events" in how for name, how in ways.items() if name != "ours"):
        time_provider(case, ours, results["ours"], sets, device, seconds, captured=False)


# --- printing


def seconds_of(result: Result, direction: str) -> float | None:
    """The mean of the turns' medians."""
    turns = result["timings"].get(direction)
    return sum(t["median"] for t in turns) / len(turns) if turns else None


def over_ours(found: Result, name: str, direction: str) -> float | None:
    """A provider's time over ours, both timed the same way."""
    theirs = seconds_of(found["providers"][name], direction)
    if theirs is None or "ours" not in found["providers"]:
        return None
    by_events = found["providers"][name]["timings"][direction][0]["how"] == "events"
    ours = found["providers"]["ours"]
    mine = (seconds_of(ours, f"{direction} by events") if by_events else None) or seconds_of(ours, direction)
    return theirs / mine if mine else None


def rate(found: Result, direction: str, seconds: float) -> str:
    """Bandwidth and its share of the copy's, or TFLOP/s."""
    nbytes = found["bytes"][direction]
    if nbytes is None:
        return f"{found['flops'] / seconds / 1e12:7.1f} TFLOP/s"
    return f"{nbytes / seconds / 1e9:7.1f} GB/s {nbytes / seconds / found['copy'][direction]:5.0%}"


def show(found: Result) -> None:
    """Print a case: a line for each direction and provider, ours with the copy's share, peers with the ratio."""
    print(f"\n{found['name']}")
    for direction in found["bytes"]:
        for name, result in found["providers"].items():
            taken = seconds_of(result, direction)
            if taken is None:
                continue
            turns = [Timing(**turn) for turn in result["timings"][direction]]
            spans = ", ".join(f"{t.median * 1e3:.4f} ({t.p20 * 1e3:.4f}-{t.p80 * 1e3:.4f})" for t in turns)
            peak = f"  peak {result['peak_bytes'] / 2**20:.0f} MB" if result.get("peak_bytes") else ""
            ratio = over_ours(found, name, direction)
            beside = f"  {ratio:.2f}x" if ratio and name != "ours" else ""
            print(
                f"  {direction:8} {name:16} {spans} ms by {turns[0].how}  {rate(found, direction, taken)}"
                f"{beside}{peak if direction == 'both' else ''}"
            )
    for name, result in found["providers"].items():
        if "error" in result:
            print(f"  {name}: {result['error']}")
        for direction, error in result.get("failed", {}).items():
            print(f"  {name} {direction}: {error}")
        if "check" in result and not result["timings"]:
            print(f"  {name}: right, {result['check']}")
        if result.get("kernels") == "reference":
            print("  ours is the reference implementation, not a kernel")
    sys.stdout.flush()


# --- the command


def parse(words: list[str]) -> argparse.Namespace:
    """The words of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with float64 before timing; always done")
    parser.add_argument("--check-only", action="store_true", help="compare with float64 and do not time")
    parser.add_argument("--quick", action="store_true", help="one shape an op, within three minutes")
    parser.add_argument("--ops", default=",".join(OPS), help="ops, separated by commas")
    parser.add_argument("--providers", default=",".join(PACKAGES), help="providers, separated by commas")
    parser.add_argument("--seconds", type=float, default=0.12, help="of one measurement, about")
    parser.add_argument("--limit", type=float, help="seconds after which the remaining cases are left out")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder of the results")
    asked = parser.parse_args(words)
    for word, known in (("ops", OPS), ("providers", PACKAGES)):
        unknown = set(getattr(asked, word).split(",")) - set(known)
        if unknown:
            parser.error(f"--{word}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return asked


def table(asked: argparse.Namespace, device: torch.device) -> list[Case]:
    """The cases that are asked for."""
    on_gpu = kernel_cases.QUICK if asked.quick else kernel_cases.FULL
    cases = on_gpu if device.type == "cuda" else kernel_cases.SMALL
    return [case for case in cases if case.op in asked.ops.split(",")]


def run_all(asked: argparse.Namespace, device: torch.device) -> Result:
    """Run the table until the time is out; the results are written after every case."""
    began = time.monotonic()
    limit = asked.limit or (165 if asked.quick else 520)
    names = [name for name in asked.providers.split(",") if installed(name)]
    absent = sorted(set(asked.providers.split(",")) - set(names))
    print(f"providers: {', '.join(names)}{'; not installed: ' if absent else ''}{', '.join(absent)}")
    results: Result = {"machine": machine(device, DISTRIBUTIONS), "quick": asked.quick, "cases": [], "left_out": []}
    for case in table(asked, device):
        if time.monotonic() - began > limit:
            results["left_out"].append(case.name)
            continue
        left_out = {"compile"} if asked.quick and case.op in SLOW_TO_COMPILE else set()
        there = [name for name in names if name not in left_out]
        try:
            found = run_case(case, device, there, asked.seconds, timed=not asked.check_only)
        except torch.OutOfMemoryError as error:
            results["left_out"].append(f"{case.name} ({reason(error)})")
            continue
        results["cases"].append(found)
        show(found)
        if not asked.check_only:
            path = write_results(results, asked.out, f"kernels-{device.type}")
    if results["left_out"]:
        print(f"\nleft out, the limit being {limit:.0f} s: {', '.join(results['left_out'])}")
    if not asked.check_only and results["cases"]:
        print(f"\n{write_results(results, asked.out, path.stem)}  ({time.monotonic() - began:.0f} s)")
    return results


def main(words: list[str]) -> int:
    """Run what the words ask for; 1 where ours failed."""
    asked = parse(words)
    device = pick_device("auto")
    if device.type != "cuda":
        print("This is a CPU: the reference implementations beside torch at small sizes, no kernel is measured.")
    # A stream of its own, for the one that is current by default cannot be captured.
    with torch.cuda.stream(torch.cuda.Stream()) if device.type == "cuda" else nullcontext():
        results = run_all(asked, device)
    ours = [found["providers"].get("ours", {}) for found in results["cases"]]
    return 1 if any("error" in result or "failed" in result for result in ours) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
