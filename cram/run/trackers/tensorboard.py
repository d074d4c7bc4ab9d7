"""TensorBoard's file of a run: the numbers of metrics.jsonl, and the recipe.

One file holds all of them. It is written anew whenever a process takes up the run, so that it never has a record that
metrics.jsonl has not, and each record is in the file as soon as it is written: both files end at the same record after
a kill. The writer of torch would keep records back for minutes, and takes ten times as long, one event for each number.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cram.run.trackers.tracker import Record, TrackedRun, name_numbers

FOLDER = "tensorboard"
_VERSION = "brain.Event:2"  # the first event of every file; of an older version, steps that step back are dropped


class TensorBoard:
    """Writes the file that `tensorboard --logdir` reads. It is part of every run.

    Args:
        run: the file is replaced by one with the recipe of this run, and
        records: with the numbers that it has so far.
    """

    def __init__(self, run: TrackedRun, records: Sequence[Record]) -> None:
        # Imported here because readers of metrics do not need them.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder = run.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.*"):
            _empty(old)
        now = time.time()
        self._file = _new_file(folder, now).open("ab")
        self._writer: Any = RecordWriter(self._file)
        self._add(file_version=_VERSION, wall_time=now)
        # A TensorBoard that is looking on forgets what the earlier file told it: all from this step on.
        self._add(session_log=SessionLog(status=SessionLog.START), step=0, wall_time=now)
        for summary in _recipe_summaries(run):
            self._add(summary=summary, step=0, wall_time=now)
        for record in records:
            self._add_record(record)
        self._file.flush()

    def write(self, record: Record) -> None:
        """Append the numbers of a record as one event."""
        self._add_record(record)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add_record(self, record: Record) -> None:
        value = self._summary.Value
        values = [value(tag=name, simple_value=number) for name, number in name_numbers(record).items()]
        if values:
            self._add(summary=self._summary(value=values), step=int(record["step"]), wall_time=record["time"])

    def _add(self, **fields: Any) -> None:
        self._writer.write(self._event(**fields).SerializeToString())


def _empty(old: Path) -> None:
    """Empty a file of an earlier process, or remove it where that was done before.

    A TensorBoard that is looking on would never turn to the next file if this one were gone.
    """
    if old.is_symlink() or old.stat().st_size == 0:
        old.unlink()
    else:
        os.truncate(old, 0)


def _new_file(folder: Path, now: float) -> Path:
    """Choose a name that sorts behind those of earlier files, as TensorBoard reads them in this order."""
    return folder / f"events.out.tfevents.{now:017.6f}.cram"


def _recipe_summaries(run: TrackedRun) -> list[Any]:
    """The recipe as text, for the tab Text, and each of its keys, for the tab HParams."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    path = run.folder / "recipe.yaml"
    if not path.exists():
        return []
    code = "\n".join(f"    {line}" for line in path.read_text().splitlines())  # a block of code in Markdown
    text = Summary.Value(
        tag="recipe/text_summary",
        metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
        tensor=TensorProto(dtype=DT_STRING, string_val=[code.encode()]),
    )
    keys = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in run.recipe.items()}
    return [Summary(value=[text]), hparams_pb(keys, trial_id=run.id)]
