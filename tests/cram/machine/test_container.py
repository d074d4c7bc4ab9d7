from pathlib import Path

import pytest

from cram.machine import container
from cram.machine.container import cpu_quota, memory_limit


class FakeGroups:
    """A tree of control groups, and the file that says which of them are this process's."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.root.mkdir()
        self._own = folder / "own"

    def place(self, lines: str) -> None:
        self._own.write_text(lines)

    def write(self, file: str, content: str) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGroups:
    monkeypatch.setattr(container, "GROUPS", tmp_path / "own")
    monkeypatch.setattr(container, "MOUNTED", tmp_path / "cgroup")
    return FakeGroups(tmp_path)


def test_without_groups_nothing_is_limited(groups: FakeGroups) -> None:
    assert (cpu_quota(), memory_limit()) == (None, None)
    for lines in ("", "0::/\n", "no line of a group\n", "0::/of/which/there/is/no/folder\n"):
        groups.place(lines)
        assert (cpu_quota(), memory_limit()) == (None, None)


def test_the_smallest_limit_on_the_way_to_the_root_counts(groups: FakeGroups) -> None:
    groups.place("0::/outer/inner\n")
    groups.write("outer/cpu.max", "150000 100000\n")
    groups.write("outer/inner/cpu.max", "max 100000\n")
    groups.write("outer/memory.max", "max\n")
    groups.write("outer/inner/memory.max", f"{2**31}\n")
    groups.write("beside/cpu.max", "10000 100000\n")
    groups.write("outer/inner/below/memory.max", "4096\n")
    assert (cpu_quota(), memory_limit()) == (1.5, 2**31)
    groups.write("outer/inner/cpu.max", "20000 40000\n")
    groups.write("outer/memory.high", f"{2**30}\n")
    assert (cpu_quota(), memory_limit()) == (0.5, 2**30)


def test_version_1_has_a_folder_for_each_controller(groups: FakeGroups) -> None:
    groups.place("4:memory:/job\n3:cpu,cpuacct:/job\n2:cpuset:/other\n0::/\n")
    groups.write("cpu,cpuacct/job/cpu.cfs_period_us", "50000\n")
    groups.write("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n")
    groups.write("memory/job/memory.limit_in_bytes", f"{2**30}\n")
    groups.write("cpuset/other/memory.limit_in_bytes", "4096\n")
    assert (cpu_quota(), memory_limit()) == (None, 2**30)
    groups.write("cpu,cpuacct/job/cpu.cfs_quota_us", "125000\n")
    assert cpu_quota() == 2.5


@pytest.mark.parametrize("lines", ["0::/docker/abc\n", "0::/../abc\n", "3:cpu:/docker/abc\n1:memory:/docker/abc\n"])
def test_a_group_that_is_mounted_as_the_root_is_found(groups: FakeGroups, lines: str) -> None:
    groups.place(lines)
    version_1 = "memory" in lines
    groups.write("cpu/cpu.cfs_period_us" if version_1 else "unused", "100000")
    groups.write("cpu/cpu.cfs_quota_us" if version_1 else "cpu.max", "200000" if version_1 else "200000 100000")
    groups.write("memory/memory.limit_in_bytes" if version_1 else "memory.max", "1000")
    assert (cpu_quota(), memory_limit()) == (2.0, 1000)


def test_version_2_beside_version_1_is_read_too(groups: FakeGroups) -> None:
    groups.place("1:name=systemd:/\n0::/job\n")
    groups.write("unified/job/cpu.max", "300000 100000\n")
    assert cpu_quota() == 3.0


@pytest.mark.parametrize("content", ["", "max", "100000", "1 2 3", "a b", "100000 0", "0 100000", "-5 100000", "1.5 1"])
def test_a_quota_that_cannot_be_read_limits_nothing(groups: FakeGroups, content: str) -> None:
    groups.place("0::/\n")
    groups.write("cpu.max", content)
    assert cpu_quota() is None


@pytest.mark.parametrize("content", ["", "max", "none", "1 2", "0", "-1"])
def test_a_memory_limit_that_cannot_be_read_limits_nothing(groups: FakeGroups, content: str) -> None:
    groups.place("0::/\n")
    groups.write("memory.max", content)
    assert memory_limit() is None
