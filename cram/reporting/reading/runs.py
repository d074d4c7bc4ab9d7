"""What a report knows of a run, read from its folder: finished or not, whole or being written."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cram.config.config import Config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.files.sealed import read_sealed
from cram.reporting.reading.columns import Column, tabulate
from cram.run.checksums import (
    ENVIRONMENT,
    check_file,
    is_finished,
    open_checkpoints,
    read_receipt,
    read_run_config,
)
from cram.run.folder import find_run
from cram.run.heartbeat import last_beat
from cram.run.metrics import read_metrics
from cram.run.receipt import tabulate_time

# A process at work writes its heartbeat each second. A busy machine or a slow disk may delay it.
FRESH_SECONDS = 15.0
# Accounts of time that a run shares with others, or in which the machine was not at work.
NOT_OF_THE_RUN = ("preparation", "asleep")
METRICS, GLUE = "metrics.jsonl", "glue.json"
LARGEST_PLACE = 1e11  # updates or seconds: beyond it a number is damaged, and a time has no date
RunStatus = Literal["running", "unfinished", "finished", "failed"]


@dataclass(frozen=True)
class RunData:
    """A run, as its folder tells of it.

    Attributes:
        folder: its path as the user wrote it.
        config: the recipe that it began with.
        environment: versions and hardware, of environment.json.
        records: lines of metrics.jsonl, in order.
        receipt: of a finished run; None before.
        status: `running` where a process has written a heartbeat in the last seconds, `failed` for a finished run
            without a usable model.
        state: of the newest checkpoint of a run that is not finished; None without one, and for a finished run.
        glue: content of glue.json; None where the model was not fine-tuned, or the file is damaged.
        price: of an hour of its machine, where the reader has given it.
    """

    folder: Path
    config: Config
    environment: dict[str, Any]
    records: list[dict[str, Any]]
    receipt: dict[str, Any] | None
    status: RunStatus
    state: dict[str, Any] | None = None
    glue: dict[str, Any] | None = None
    price: float | None = None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @cached_property
    def _by_kind(self) -> dict[str, list[dict[str, Any]]]:
        kinds: dict[str, list[dict[str, Any]]] = {}
        for record in self.records:
            kinds.setdefault(record["kind"], []).append(record)
        return kinds

    @cached_property
    def train(self) -> dict[str, Column]:
        """The numbers of the records of training, as `tabulate` gives them."""
        return tabulate(self.of_kind("train"))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, such as `train` or `held_out`, in order."""
        return self._by_kind.get(kind, [])

    def last(self, kind: str) -> dict[str, Any]:
        """The last record of a kind; an empty one where there is none."""
        records = self.of_kind(kind)
        return records[-1] if records else {}

    def figure(self, *names: str) -> Any:
        """A value of the receipt by the names that lead to it; None where it is missing or not finite.

        Receipts of early versions do not have everything, and a run that is not finished has none.
        """
        return find_value(self.receipt, *names)

    def told(self, name: str) -> Any:
        """What the receipt says under a name, or else the state of the newest checkpoint; None if neither has it."""
        return find_value(self.receipt if self.receipt is not None else self.state, name)

    @property
    def time(self) -> dict[str, dict[str, float | None]]:
        """Seconds by account, `charged` and `not_charged`; before the end those of the newest checkpoint, or none."""
        booked = find_value(self.state, "clock", "booked")
        time: dict[str, dict[str, float | None]] = self.figure("time") or (tabulate_time(booked) if booked else {})
        return time

    @property
    def machine_hours(self) -> float | None:
        """How long the run had its machine, charged or not, without the preparation; None where that is not known."""
        seconds = [
            value
            for accounts in self.time.values()
            for name, value in accounts.items()
            if name not in NOT_OF_THE_RUN and value is not None
        ]
        return sum(seconds) / 3600 if seconds else None

    @property
    def cost(self) -> float | None:
        """What the run has cost; None without a price, and where its time is not known."""
        return self.price * self.machine_hours if self.price and self.machine_hours is not None else None


def find_value(mapping: Any, *names: str) -> Any:
    """Follow names into nested mappings; None where one of them is missing."""
    for name in names:
        if not isinstance(mapping, Mapping):
            return None
        mapping = mapping.get(name)
    return mapping


def read_run(folder: Path) -> RunData:
    """Read a run folder. A run that is being written is read as far as it is; an incomplete last record is left out.

    Raises:
        CramError: for a folder that is not a run, and for files that are damaged.
    """
    find_run(str(folder))
    receipt = _read_receipt(folder)
    return RunData(
        folder=folder,
        config=read_run_config(folder),
        environment=read_json(check_file(folder, ENVIRONMENT)),
        records=_read_records(folder / METRICS),
        receipt=receipt,
        status=_find_status(folder, receipt),
        state=None if receipt is not None else open_checkpoints(folder).read_newest_state(),
        glue=_read_glue(folder / GLUE),
    )


def _read_receipt(folder: Path) -> dict[str, Any] | None:
    """Read the receipt of a finished run; None for a run that is not finished, or that is just being finished."""
    try:
        return read_receipt(folder) if is_finished(folder) else None
    except CramError:
        # The end of a run writes its receipt twice, and takes it from the list of checksums before.
        with suppress(CramError):
            if not is_finished(folder):
                return None
        raise


def _read_glue(path: Path) -> dict[str, Any] | None:
    """Read the results of GLUE. A damaged file says nothing against the run; the page's section on GLUE names it."""
    with suppress(CramError):
        return read_sealed(path) if path.exists() else None
    return None


def _find_status(folder: Path, receipt: dict[str, Any] | None) -> RunStatus:
    if receipt is not None:
        return "failed" if receipt.get("failed") else "finished"
    beat = last_beat(folder)
    return "running" if beat is not None and abs(time.time() - beat) <= FRESH_SECONDS else "unfinished"


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Read the records of a run; none where it has written none. All of them have a place in time."""
    if not path.exists():
        return []
    records = read_metrics(path)
    for record in records:
        for name in ("step", "charged_seconds", "time"):
            value = record.get(name, 0 if name == "time" else None)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_PLACE:
                raise CramError(
                    f"{path}: damaged or edited, the {name} of a record is missing or impossible. "
                    "Put the file back as the run wrote it, or remove it: the page then has no curves."
                )
    return records
