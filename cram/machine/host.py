"""The computer without its accelerator: cores, memory, installed versions.

No torch here, so that preparing data starts without it.
"""

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

ROOT = Path(__file__).resolve().parents[2]
IS_CLONE = (ROOT / "kernels" / "cram_kernels").is_dir()  # otherwise ROOT is where packages are installed


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The maker's name of the CPU, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 (a kernel file, not a path of ours)
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            if name := next(names, None):
                return name
    except OSError:
        pass
    return platform.processor() or platform.machine()


# What a container may use, where it is limited: of version 2 and of version 1.
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def host_memory() -> int | None:
    """Bytes of memory of the machine, or of its container if that has less; None where the system does not tell."""
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it is "max"
            limits.append(int(path.read_text()))
    return min(limits)


def peak_host_memory() -> dict[str, int | None]:
    """Largest memory used so far, in bytes, by this process and by the largest of its children; None on Windows."""
    try:
        import resource
    except ImportError:
        return {"this process": None, "a worker": None}
    unit = 1 if sys.platform == "darwin" else 1024
    processes = {"this process": resource.RUSAGE_SELF, "a worker": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(who).ru_maxrss * unit for name, who in processes.items()}


def package_versions() -> dict[str, str]:
    """The versions of cram and of all packages that it requires and that are installed, by name."""
    # A clone's own list is newer than that of an installation made from it earlier.
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
    """The commit of the clone this runs from, with `+` where files differ; None for an installed package.

    An installed package may lie inside of somebody's repository, whose commit says nothing about it.
    """
    if not (IS_CLONE and (ROOT / ".git").exists()):
        return None
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
