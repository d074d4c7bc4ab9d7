#!/usr/bin/env bash
# tensorboard 2.21.0 (with numpy 2.3.4, setuptools 80.9.0): a run is begun again in its folder while TensorBoard looks on.
# Its event file is removed, and another one, whose name sorts behind it, is written. TensorBoard's own reader
# (EventAccumulator, which `tensorboard --load_fast=false` uses) never turns to the new file: it shows the removed values
# for as long as it lives, and says nothing. A reader that is made now shows the new ones. If the old file is emptied
# instead of removed, the reader goes on to the new one.
# Expected: the values of the file that is there. Seen: those of the file that is gone.
# Passes while this is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorboard==2.21.0 numpy==2.3.4 setuptools==80.9.0
venv/bin/python - 2>&1 <<'PYTHON'
import os
from pathlib import Path

import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def write(path, loss):
    """An event file as a new process begins it, with one value."""
    with path.open("wb") as file:
        writer = RecordWriter(file)
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=loss)])
        for event in (
            Event(file_version="brain.Event:2", wall_time=1.0),
            Event(session_log=SessionLog(status=SessionLog.START), step=0, wall_time=1.0),
            Event(summary=summary, step=1, wall_time=1.0),
        ):
            writer.write(event.SerializeToString())


seen = {}
for name, put_away in (("removed", os.unlink), ("emptied", lambda path: os.truncate(path, 0))):
    run = Path(name)
    run.mkdir()
    old, new = run / "events.out.tfevents.1", run / "events.out.tfevents.2"
    write(old, 10.0)
    reader = EventAccumulator(str(run)).Reload()
    assert [event.value for event in reader.Scalars("loss")] == [10.0]
    put_away(old)
    write(new, 20.0)
    for _ in range(3):
        reader.Reload()
    fresh = EventAccumulator(str(run)).Reload()
    seen[name] = [[event.value for event in each.Scalars("loss")] for each in (reader, fresh)]
    print(f"tensorboard {tensorboard.__version__}, old file {name}: looking on {seen[name][0]}, begun now {seen[name][1]}")
assert seen == {"removed": [[10.0], [20.0]], "emptied": [[20.0], [20.0]]}
print("as described: the reader stays at the file that was removed")
PYTHON
