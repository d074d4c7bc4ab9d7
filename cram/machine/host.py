"""The computer without its accelerator: cores, memory, installed versions.

This module does not import torch, so that `cram.prepare` starts quickly.
"""

import ctypes
import math
import os
import platform
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from cram import __version__
from cram.machine.container import cpu_quota, memory_limit

ROOT = Path(__file__).resolve().parents[2]
IS_CLONE = (ROOT / "kernels" / "cram_kernels").is_dir()  # otherwise ROOT is the folder of installed packages


def cores() -> int:
    """Return the number of CPU cores that this process may use, at most those whose time its container gets."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return present if quota is None else min(present, math.ceil(quota))


def cpu_name() -> str:
    """Return the manufacturer's name of the CPU, or its architecture if the system does not say."""
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 (a file of the kernel)
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            if name := next(names, None):
                return name
    except OSError:
        pass
    return platform.processor() or platform.machine()


def host_memory() -> int | None:
    """Return the bytes of memory of the machine, or of its container if that has less; None if unknown."""
    try:
        present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limit = memory_limit()
    return present if limit is None else min(present, limit)


def peak_host_memory() -> dict[str, int | None]:
    """Return the largest memory used so far, in bytes, by this process and by its largest child; None on Windows."""
    try:
        import resource
    except ImportError:
        return {"this process": None, "a worker": None}
    unit = 1 if sys.platform == "darwin" else 1024
    own, worker = (resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"this process": _peak_of_linux() or own, "a worker": worker}


def _peak_of_linux() -> int | None:
    """Return the largest memory of this process in bytes, where Linux reports it.

    Linux begins `ru_maxrss` of a process with the memory of the process that started it; `VmHWM` begins anew.
    """
    with suppress(OSError):
        if peak := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(peak[1]) * 1024
    return None


def release_memory() -> None:
    """Return the memory of deleted objects to the system; the C library and Arrow keep it for what is made next."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # of the GNU C library
        library.malloc_trim(0)


def package_versions() -> dict[str, str]:
    """Return the versions of cram and of its installed requirements, by package name."""
    # In a clone, pyproject.toml may be newer than the metadata of an editable installation.
    if IS_CLONE:
        required = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        required = metadata.requires("cram") or []
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    versions = {"cram": __version__}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def commit() -> str | None:
    """Return the commit of the clone that this code runs from, with `+` if files were changed.

    None for an installed package. It may lie inside another repository, whose commit would say nothing about it.
    """
    if not (IS_CLONE and (ROOT / ".git").exists()):
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
