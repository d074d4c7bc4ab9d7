import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cram.machine.processes import PIPE_VARIABLE, end_with_parent

ROOT = Path(__file__).parents[3]
# Says what becomes of it in a file, which is there whole or not at all.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from cram.machine.processes import end_with_parent

def say(text):
    Path("said.part").write_text(text)
    Path("said.part").rename("said")

def end(*_):
    say(f"SIGTERM, {os.environ.get('CRAM_PARENT')}")
    os._exit(0)

signal.signal(signal.SIGTERM, end)
parent = int(sys.argv[1])
"""
WATCHES_THEN_ITS_PARENT_ENDS = "end_with_parent()\nos.kill(parent, signal.SIGKILL)\n"
ITS_PARENT_ENDS_THEN_IT_WATCHES = (
    "os.kill(parent, signal.SIGKILL)\nwhile os.getppid() == parent:\n    time.sleep(0.01)\nend_with_parent()\n"
)
PARENT = """
import os, sys
from cram.machine.processes import start_child
with open(os.devnull, "w") as output:
    start_child([sys.executable, "-c", sys.argv[1], str(os.getpid())], output).wait()
"""


@pytest.mark.parametrize("child", [WATCHES_THEN_ITS_PARENT_ENDS, ITS_PARENT_ENDS_THEN_IT_WATCHES])
def test_a_child_is_asked_to_end_when_its_parent_is_killed(tmp_path: Path, child: str) -> None:
    code = CHILD + child + "time.sleep(60)\nsay('nothing came')\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.run([sys.executable, "-c", PARENT, code], cwd=tmp_path, env=environment, check=False)
    assert parent.returncode == -signal.SIGKILL
    patience = time.monotonic() + 30
    while not (tmp_path / "said").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    assert (tmp_path / "said").read_text() == "SIGTERM, None"


@pytest.mark.parametrize("given", [None, "", "x", "-1", "98765", "9" * 30])
def test_a_process_of_its_own_goes_on(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        if given is not None:
            monkeypatch.setenv(PIPE_VARIABLE, given)
        end_with_parent()
        time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not asked
