"""Timing of contenders side by side, on a machine where other programs run too.

Contenders take turns, round by round in a rotating order, so that other programs slow all of them alike. The median and
the 20th and 80th percentile are reported, never the best time.
"""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from cram.files.atomic import write_json
from cram.machine.device import device_name, synchronize
from cram.machine.kernels import describe_kernel_settings


def time_alternating(
    contenders: dict[str, Callable[[], object]], rounds: int, device: torch.device, warmup: int = 2
) -> dict[str, list[float]]:
    """Call all contenders in turns.

    Args:
        contenders: functions to time, by name.
        rounds: how often each is timed.
        device: waited for before and after each call.
        warmup: rounds before these that are not timed.

    Returns:
        The seconds of each call, by contender.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            synchronize(device)
            begin = time.perf_counter()
            contenders[name]()
            synchronize(device)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the median and the 20th and 80th percentile of at least two values."""
    cuts = statistics.quantiles(values, n=5, method="inclusive")
    return {"median": statistics.median(values), "p20": cuts[0], "p80": cuts[3]}


def describe_machine(device: torch.device, packages: Sequence[str] = ("torch", "transformers")) -> dict[str, Any]:
    """Return what a result depends on: hardware, driver, launch settings, versions of packages, commit, date."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False)
    return {
        "device": device_name(device),
        "gpu": _describe_gpu(device),
        "threads": torch.get_num_threads(),
        "load": Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "kernel_settings": describe_kernel_settings(device),
        "versions": {name: version for name in packages if (version := _find_version(name))},
        "commit": commit.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _describe_gpu(device: torch.device) -> dict[str, Any] | None:
    """Return driver, CUDA version, compute capability and size of a GPU; None for another device."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "driver": _find_driver(),
        "cuda": torch.version.cuda,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
    }


def _find_driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def write_results(results: dict[str, Any], folder: Path, name: str) -> Path:
    """Write `FOLDER/NAME.json`, and return its path."""
    path = folder / f"{name}.json"
    write_json(path, results)
    return path
