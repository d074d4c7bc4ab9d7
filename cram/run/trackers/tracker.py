"""The contract of a tracker, and the names under which all of them show the numbers of a record.

A new tracker is one file here with a class that has these methods, one line in `TRACKERS` of `cram.config.choices`,
under the name of its package, and that package in the extra `track` of pyproject.toml.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

Record = Mapping[str, Any]

PROJECT = "cram"  # the name under which trackers put all runs together
PLACE = ("kind", "step", "time")  # what every record has, and no tracker shows as a number
# TensorBoard's numbers are fp32, which tells counts apart up to 2^24 only: in millions the digits that it shows are
# right. Every tracker has this name, so that a curve is found under one name everywhere.
IN_MILLIONS = {"positions": "positions_millions"}


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker knows it.

    Attributes:
        folder: of the run.
        id: letters and digits, which differ from those of all other runs, and stay when the run is resumed.
    """

    folder: Path
    id: str

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def group(self) -> str:
        """The name of the folder above, which holds the runs of a table together."""
        return self.folder.resolve().parent.name

    @property
    def recipe(self) -> dict[str, Any]:
        """The values of the recipe that the run began with, by the full name of each key."""
        path = self.folder / "recipe.yaml"
        return dict(_flatten(yaml.safe_load(path.read_text()), ".")) if path.exists() else {}


class Tracker(Protocol):
    """Shows the numbers of a run. A method that fails raises any exception; the run goes on without the tracker."""

    def begin(self, run: TrackedRun) -> int | None:
        """Begin to show a run, or continue to where the tracker knows its id.

        Returns:
            The last step that the tracker has, -1 for none; None where it cannot tell.
        """
        ...

    def write(self, record: Record) -> None:
        """Show the numbers of a record."""
        ...

    def end(self, summary: Mapping[str, Any]) -> None:
        """End, and wait until everything is sent or kept.

        Args:
            summary: figures of the receipt by name; empty for a run that is not finished.
        """
        ...


def name_numbers(record: Record) -> dict[str, float]:
    """Name each number of a record `KIND/NAME`, or `KIND/NAME/PART` for a mapping, such as `train/lr/matrices`.

    Null, which JSON has for infinity and NaN, is left out, and so are texts.
    """
    figures = {name: value for name, value in record.items() if name not in PLACE}
    numbers = {}
    for name, value in _flatten(figures):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            numbers[f"{record['kind']}/{IN_MILLIONS.get(name, name)}"] = value / (1e6 if name in IN_MILLIONS else 1)
    return numbers


def _flatten(values: Mapping[str, Any], separator: str = "/") -> Iterator[tuple[str, Any]]:
    """Give each value of nested mappings with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}{separator}{inner}", part) for inner, part in _flatten(value, separator))
        else:
            yield name, value
