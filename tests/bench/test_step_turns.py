"""Updates of two checkouts in turns: the order, the medians and ratios, a run that fails, and the worker itself."""

import io
import json
from pathlib import Path

import pytest
import torch

from bench import step_turns, step_worker
from bench.checkouts import ROOT
from bench.step_training import TINY_WORDS
from cram.errors import CramError

# Says that an update takes as many CPU seconds as the name of the working folder has letters, and half of it by wall.
FAKE = """
import json, os, sys
letters = len(os.path.basename(os.getcwd()))
for line in sys.stdin:
    print(json.dumps([letters * int(line), letters * int(line) / 2]), flush=True)
"""


@pytest.fixture
def checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    worker = tmp_path / "worker.py"
    worker.write_text(FAKE)
    monkeypatch.setattr(step_turns, "WORKER", worker)
    folders = {"ours": tmp_path / "ab", "theirs": tmp_path / "abcdef"}
    for folder in folders.values():
        folder.mkdir()
    return folders


def test_medians_and_ratios(checkouts: dict[str, Path]) -> None:
    result = step_turns.compare_updates(checkouts, 1, ["recipe=bert_demo"], rounds=3)
    assert result["ours"] == {"cpu_seconds": 2, "wall_seconds": 1}
    assert result["theirs"] == {"cpu_seconds": 6, "wall_seconds": 3}
    assert (result["cpu_ratio"], result["wall_ratio"]) == (3, 3)
    assert "ours 2000 ms, theirs 6000 ms" in step_turns.format_line("4x256", result)


def test_a_run_that_fails_names_its_checkout(checkouts: dict[str, Path]) -> None:
    step_turns.WORKER.write_text("raise SystemExit(2)")
    with pytest.raises(CramError, match=r"ab: the training run has failed"):
        step_turns.compare_updates(checkouts, 1, [], rounds=2)


def test_the_worker_times_updates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n"))
    threads = torch.get_num_threads()
    step_worker.main(threads, [*TINY_WORDS, "optimizer.kind=muon"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert len(answers) == 2 and all(cpu > 0 and wall > 0 for cpu, wall in answers)
    assert (ROOT / "bench" / "step_worker.py").is_file()
