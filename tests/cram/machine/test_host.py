import subprocess
import sys
from pathlib import Path

import pytest

from cram.machine import host
from cram.machine.host import host_memory, peak_host_memory


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(host, "CGROUP_LIMITS", (tmp_path / "none", limit))
    machine = host_memory()
    assert machine
    for content, memory in (("max\n", machine), ("1073741824\n", 2**30), (f"{2**63}\n", machine)):
        limit.write_text(content)
        assert host_memory() == memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports the peak of a process")
def test_the_peak_of_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    ballast = b"x" * 300_000_000
    code = "from cram.machine.host import peak_host_memory; print(peak_host_memory()['this process'])"
    peak = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < int(peak) < len(ballast)
    own = peak_host_memory()["this process"]
    assert own is not None
    assert own > len(ballast)
