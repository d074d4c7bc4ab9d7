"""What a container lets this process use of a machine, by the control groups of Linux, versions 1 and 2.

A limit of a group holds for all groups below it, so that the smallest one on the way to the root counts.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")  # the groups of this process, one line for each hierarchy
MOUNTED = Path("/sys/fs/cgroup")


def cpu_quota() -> float | None:
    """Return how many CPU cores' time this process gets, such as 1.5; None if nothing limits it."""
    return min((quota for folder in _folders("cpu") for quota in _quotas(folder)), default=None)


def memory_limit() -> int | None:
    """Return the bytes of memory that the container of this process gets; None if nothing limits it.

    Above `memory.high` the system slows a container down until it has given memory back, so that it counts as a limit.
    """
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    found = (_number(folder / name) for folder in _folders("memory") for name in names)
    return min((limit for limit in found if limit and limit > 0), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Give the folders of this process's group and of all groups above it that have the limits of a controller.

    In a container the group may be mounted as the root itself, and its path then does not exist below it.
    """
    try:
        lines = GROUPS.read_text().splitlines()
    except (OSError, ValueError):  # another system than Linux
        return
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:  # version 2, which has another place beside version 1
            roots = [MOUNTED, MOUNTED / "unified"]
        elif controller in controllers.split(","):
            roots = [MOUNTED / controllers, MOUNTED / controller]
        else:
            continue
        steps = [step for step in path.split("/") if step not in ("", ".", "..")]
        for root in roots:
            for depth in range(len(steps) + 1):
                yield root.joinpath(*steps[:depth])


def _quotas(folder: Path) -> Iterator[float]:
    """Give the cores' time of a folder by version 2 and by version 1, where it has them."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # there is no such limit, it is "max", or it cannot be read
            quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if quota > 0 and period > 0:  # version 1 writes -1 for no limit
                yield quota / period


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # there is no such limit, or it is "max"
        return int(path.read_text())
    return None
