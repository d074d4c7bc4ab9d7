"""The printed table of the kernel benchmark, and the figures that it and the plot take from the results."""

import sys
from typing import Any

from bench.kernel_timing import Timing

Result = dict[str, Any]


def mean_seconds(result: Result, direction: str) -> float | None:
    """Return the mean of the medians of a provider's turns, or None where the direction was not timed."""
    turns = result["timings"].get(direction)
    return sum(turn["median"] for turn in turns) / len(turns) if turns else None


def ratio_to_ours(case: Result, name: str, direction: str) -> float | None:
    """Return the time of a provider divided by ours, both timed in the same way."""
    peer_seconds = mean_seconds(case["providers"][name], direction)
    if peer_seconds is None or "ours" not in case["providers"]:
        return None
    by_events = case["providers"][name]["timings"][direction][0]["how"] == "events"
    ours = case["providers"]["ours"]
    our_seconds = mean_seconds(ours, f"{direction} by events") if by_events else None
    our_seconds = our_seconds or mean_seconds(ours, direction)
    return peer_seconds / our_seconds if our_seconds else None


def format_rate(case: Result, direction: str, seconds: float) -> str:
    """Return the bandwidth and its share of the copy's bandwidth, or TFLOP/s where operations are counted."""
    nbytes = case["bytes"][direction]
    if nbytes is None:
        return f"{case['flops'] / seconds / 1e12:7.1f} TFLOP/s"
    return f"{nbytes / seconds / 1e9:7.1f} GB/s {nbytes / seconds / case['copy'][direction]:5.0%}"


def print_case(case: Result) -> None:
    """Print a case: a line for each direction and provider, and a line for each failure."""
    print(f"\n{case['name']}")
    for direction in case["bytes"]:
        for name, result in case["providers"].items():
            seconds = mean_seconds(result, direction)
            if seconds is not None:
                print(_format_line(case, name, direction, seconds))
    for name, result in case["providers"].items():
        if "error" in result:
            print(f"  {name}: {result['error']}")
        for direction, error in result.get("failed", {}).items():
            print(f"  {name} {direction}: {error}")
        if "check" in result and not result["timings"]:
            print(f"  {name}: right, {result['check']}")
        if result.get("kernels") == "reference":
            print("  ours is the reference implementation, not a kernel")
    sys.stdout.flush()


def _format_line(case: Result, name: str, direction: str, seconds: float) -> str:
    result = case["providers"][name]
    turns = [Timing(**turn) for turn in result["timings"][direction]]
    spans = ", ".join(f"{t.median * 1e3:.4f} ({t.p20 * 1e3:.4f}-{t.p80 * 1e3:.4f})" for t in turns)
    line = f"  {direction:8} {name:16} {spans} ms by {turns[0].how}  {format_rate(case, direction, seconds)}"
    ratio = ratio_to_ours(case, name, direction)
    if ratio and name != "ours":
        line += f"  {ratio:.2f}x"
    if direction == "both" and result.get("peak_bytes"):
        line += f"  peak {result['peak_bytes'] / 2**20:.0f} MB"
    return line
