import platform
import subprocess
import sys
from pathlib import Path

import pytest

from cram.machine import host
from cram.machine.host import cores, host_memory, peak_host_memory


def test_memory_is_that_of_the_container_where_it_has_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_limit", lambda: None)
    machine = host_memory()
    assert machine
    for limit in (2**30, 2**63):
        monkeypatch.setattr(host, "memory_limit", lambda limit=limit: limit)
        assert host_memory() == min(limit, machine)


def test_cores_are_those_that_the_container_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    found = {}
    for quota in (None, 0.1, 1.0, 1.5, 3.0, 100.0):
        monkeypatch.setattr(host, "cpu_quota", lambda quota=quota: quota)
        found[quota] = cores()
    assert found == {None: 4, 0.1: 1, 1.0: 1, 1.5: 2, 3.0: 3, 100.0: 4}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports the peak of a process")
def test_the_peak_of_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    ballast = b"x" * 300_000_000
    code = "from cram.machine.host import peak_host_memory; print(peak_host_memory()['this process'])"
    peak = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < int(peak) < len(ballast)
    own = peak_host_memory()["this process"]
    assert own is not None
    assert own > len(ballast)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory by themselves")
def test_the_memory_of_deleted_objects_is_returned() -> None:
    code = """
import re
from pathlib import Path
from cram.machine.host import release_memory
held = lambda: int(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1000
objects = [bytes(2000) for _ in range(100_000)]
last = objects[-1]  # the C library returns by itself what lies above all objects
del objects
kept = held()
release_memory()
print(kept, held())
"""
    kept, left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(left) < int(kept) - 100
