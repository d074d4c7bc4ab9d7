"""glibc keeps freed memory: a block that was freed costs no new pages, unless the user has settings of their own."""

import subprocess
import sys

import pytest

from cram.machine.allocator import keep_freed_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
COUNT_FAULTS = """
import resource, sys
import numpy as np
from cram.machine.allocator import keep_freed_memory
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
kept = keep_freed_memory()
for _ in range(3): np.ones(400_000)
before = faults()
for _ in range(3): np.ones(400_000)
print(kept, faults() - before)
"""


@pytest.mark.parametrize(("variables", "kept"), [({}, True), ({"MALLOC_TOP_PAD_": "0"}, False)])
def test_freed_blocks_are_reused(variables: dict[str, str], kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True)
    answer, faults = run.stdout.split()
    assert answer == str(kept) and (int(faults) < 1000) == kept


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.machine.allocator.USERS_VARIABLES", ())
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
