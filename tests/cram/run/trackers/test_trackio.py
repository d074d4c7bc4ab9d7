"""A run in trackio's own store: kept on this machine, continued after a kill, with the figures of the receipt."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cram.run.metrics import Metrics
from tests.cram.run.trackers.written_records import write_records

if importlib.util.find_spec("trackio") is None:
    pytest.skip("trackio is not installed (pip install -e '.[track]')", allow_module_level=True)

READ = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("cram")
print(json.dumps({"name": run.name, "config": run.config, "logs": SQLiteStorage.get_logs("cram", run.name)}))
"""


def test_a_resumed_run_is_one_run_without_gaps_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before trackio is imported for the first time, because it reads the variable then.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    run = tmp_path / "table" / "arm"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("seed: 3\n")
    first = Metrics(run, track="trackio")
    write_records(first, range(1, 4))
    state = first.state()
    write_records(first, range(4, 7))
    first.end_tracking()
    second = Metrics(run, state, track="trackio")
    write_records(second, range(4, 9))
    second.end_tracking({"receipt/updates": 8, "receipt/device": "a CPU"})
    command = [sys.executable, "-c", READ]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    kept = json.loads(said.splitlines()[-1])
    losses = {row["step"]: row["train/loss"] for row in kept["logs"] if "train/loss" in row}
    assert len([row for row in kept["logs"] if "train/loss" in row]) == 8
    assert losses == {step: 1.0 / step for step in range(1, 9)}
    assert [row["receipt/updates"] for row in kept["logs"] if "receipt/updates" in row] == [8]
    assert kept["name"].startswith("arm-") and kept["config"]["seed"] == 3
