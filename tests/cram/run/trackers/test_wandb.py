"""A run in the files that wandb keeps offline: continued after a kill, with the figures of the receipt."""

import importlib.util
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cram.run.metrics import Metrics
from tests.cram.run.trackers.written_records import write_records

if importlib.util.find_spec("wandb") is None:
    pytest.skip("wandb is not installed (pip install -e '.[track]')", allow_module_level=True)


def scan(data: bytes) -> Iterator[bytes]:
    """The entries of a file of wandb: seven bytes, then blocks of 32 KiB as in LevelDB's log."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32_768 - place % 32_768) < 7:  # too little room for a header
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of an entry, or its last part
            yield whole
            whole = b""


def as_values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def is_whole(path: Path) -> bool:
    """Whether a file of wandb has its last entry."""
    from wandb.proto.wandb_internal_pb2 import Record

    return any(Record.FromString(part).HasField("exit") for part in scan(path.read_bytes()))


def read_offline(run: Path) -> tuple[set[str], dict[int, float], dict[str, Any]]:
    """The ids of the runs, the loss of each step, and the summary, from all files in their order."""
    from wandb.proto.wandb_internal_pb2 import Record

    ids: set[str] = set()
    losses: dict[int, float] = {}
    summary: dict[str, Any] = {}
    paths = sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == 2
    # The process that writes the files goes on after `finish` has returned; its last entry is `exit`.
    end = time.monotonic() + 30.0
    while not all(is_whole(path) for path in paths) and time.monotonic() < end:
        time.sleep(0.05)
    for entry in (Record.FromString(part) for path in paths for part in scan(path.read_bytes())):
        if entry.HasField("run"):
            ids.add(entry.run.run_id)
        values = as_values(entry.history.item)
        if "train/loss" in values:
            step = values.get("_step", entry.history.step.num)
            assert step not in losses, "sent twice"
            losses[step] = values["train/loss"]
        summary |= as_values(entry.summary.update)
    return ids, losses, summary


def test_a_resumed_run_is_one_run_without_gaps_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    first = Metrics(tmp_path, track="wandb")
    write_records(first, range(1, 4))
    state = first.state()
    write_records(first, range(4, 7))
    first.end_tracking()
    second = Metrics(tmp_path, state, track="wandb")
    write_records(second, range(4, 9))
    second.end_tracking({"receipt/updates": 8, "receipt/device": "a CPU"})
    ids, losses, summary = read_offline(tmp_path)
    assert ids == {json.loads((tmp_path / "tracker.json").read_text())["id"]}
    assert losses == {step: 1.0 / step for step in range(1, 9)}
    assert (summary["receipt/updates"], summary["receipt/device"]) == (8, "a CPU")
