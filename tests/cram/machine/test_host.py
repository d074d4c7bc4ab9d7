from pathlib import Path

import pytest

from cram.machine import host
from cram.machine.host import host_memory


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(host, "CGROUP_LIMITS", (tmp_path / "none", limit))
    machine = host_memory()
    assert machine
    for content, memory in (("max\n", machine), ("1073741824\n", 2**30), (f"{2**63}\n", machine)):
        limit.write_text(content)
        assert host_memory() == memory
