"""Reference system time: the time that a run would have taken on a named machine, from what it has executed.

A run counts its passes and its optimizer steps, and a table holds the seconds that each of them takes on the reference
machine. A budget in this unit, such as `rst:24h`, gives the same run on a fast and on a slow machine.

Source: arXiv:2307.06440 section 3 (No Train No Gain), changed: the steps of the optimizer can be in the table, and the
passes of reference models and of curvature estimates are counted.
"""

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cram.errors import CramError

TABLES = Path(__file__).parent / "reference_times"
# The kinds of units, and what one entry of a table is for.
TRAINING, FORWARD, OPTIMIZER = "training", "forward", "optimizer"

Counts = dict[str, dict[str, int]]


class ExecutedWork:
    """Counts what a run has executed: rows of passes by kind and number of blocks, and steps of optimizers.

    Attributes:
        main: what every run does, by kind and name: rows of training passes by their blocks, optimizer steps by
            `KIND/BLOCKS`.
        overhead: what methods add, in the same form: forward passes, curvature estimates, reference models.
    """

    def __init__(self) -> None:
        self.main: Counts = defaultdict(lambda: defaultdict(int))
        self.overhead: Counts = defaultdict(lambda: defaultdict(int))

    def add_pass(self, kind: str, blocks: int, rows: int, overhead: bool = False) -> None:
        """Count the rows of a pass.

        Args:
            kind: `training` for forward and backward, `forward` for a forward pass alone.
            blocks: number of blocks that were computed.
        """
        (self.overhead if overhead else self.main)[kind][str(blocks)] += rows

    def add_step(self, optimizer: str, blocks: int, overhead: bool = False) -> None:
        """Count a step of an optimizer, by its kind and the number of blocks of its model."""
        (self.overhead if overhead else self.main)[OPTIMIZER][f"{optimizer}/{blocks}"] += 1

    def as_overhead(self) -> "ExecutedWork":
        """Return a counter that adds all that it counts to the overhead of this one."""
        counter = ExecutedWork()
        counter.main = counter.overhead = self.overhead
        return counter

    def state(self) -> dict[str, Counts]:
        """Return the counts as JSON."""
        return {
            name: {kind: dict(sorted(counts.items())) for kind, counts in sorted(part.items())}
            for name, part in (("main", self.main), ("overhead", self.overhead))
        }

    def load(self, state: dict[str, Counts]) -> None:
        """Replace the counts by what `state` gave."""
        for name, part in (("main", self.main), ("overhead", self.overhead)):
            part.clear()
            for kind, counts in state.get(name, {}).items():
                part[kind].update(counts)


@dataclass(frozen=True)
class ReferenceTimeTable:
    """Seconds of each executed unit on a named machine.

    Attributes:
        machine: its name.
        model: values of `model.*` that the table is for, by key.
        seq_len: tokens of a row.
        micro_rows: rows of the pass that an entry is for. It fixes the micro-batch of a run.
        vocab_size: rows of the embedding; None where it is not known.
        seconds: of a training or forward pass over `micro_rows` rows by kind and number of blocks, and of a step by
            `optimizer` and `KIND/BLOCKS`. Without `optimizer`, steps cost nothing.
        note: what must be known about the entries.
    """

    machine: str
    model: dict[str, Any]
    seq_len: int
    micro_rows: int
    seconds: dict[str, dict[str, float]]
    vocab_size: int | None = None
    note: str = field(default="")

    def unit_seconds(self, kind: str, name: str) -> float:
        """Return the seconds of one unit; a pass that computes no block counts as one with a single block.

        Raises:
            CramError: the table has no such entry.
        """
        if kind == OPTIMIZER and kind not in self.seconds:
            return 0.0
        entry = self.seconds.get(kind, {}).get("1" if name == "0" else name)
        if entry is None:
            what = f"{name.replace('/', ' with ')} blocks"
            have = ", ".join(self.seconds.get(kind, {})) or "none"
            raise CramError(
                f"rst.table: the table of {self.machine} has no entry {kind} for {what}; it has: {have}. "
                "Measure a table of your own with bench.rst_table, or choose other layers."
            )
        return entry

    def pace(self, blocks: int) -> float:
        """Return the seconds of a training pass for each position.

        Raises:
            CramError: the table has no such entry.
        """
        return self.unit_seconds(TRAINING, str(blocks)) / (self.micro_rows * self.seq_len)

    def total(self, counts: Counts) -> float:
        """Return the seconds of all that was counted.

        Raises:
            CramError: the table has no entry for something that was counted.
        """
        return sum(
            number * self.unit_seconds(kind, name) / (1 if kind == OPTIMIZER else self.micro_rows)
            for kind, part in sorted(counts.items())
            for name, number in sorted(part.items())
        )

    def check_monotonic(self) -> None:
        """Check that more blocks take more time.

        Raises:
            CramError: naming the entry that is not larger than the one before it.
        """
        for kind in (TRAINING, FORWARD):
            entries = sorted((int(name), seconds) for name, seconds in self.seconds.get(kind, {}).items())
            for (fewer, before), (more, after) in itertools.pairwise(entries):
                if after <= before:
                    raise CramError(
                        f"rst.table: the table of {self.machine} is not monotonic: {kind} of {more} blocks takes "
                        f"{after:g} s, and of {fewer} blocks {before:g} s. Correct the entry, or measure it again."
                    )


def table_names() -> list[str]:
    """Names of the tables that come with cram."""
    return sorted(path.stem for path in TABLES.glob("*.json"))


def load_table(name: str) -> ReferenceTimeTable:
    """Load a table and check it.

    Args:
        name: of a table that comes with cram, or the path of a json file.

    Raises:
        CramError: the table is unknown, cannot be read, or is not monotonic.
    """
    path = Path(name) if name.endswith(".json") else TABLES / f"{name}.json"
    if not path.is_file():
        raise CramError(
            f"rst.table={name} is unknown. Tables: {', '.join(table_names())}, or a path of a json file that "
            "bench.rst_table has written."
        )
    try:
        table = ReferenceTimeTable(**json.loads(path.read_text()))
        positive = all(seconds > 0 for part in table.seconds.values() for seconds in part.values())
        if not (positive and table.micro_rows >= 1 and table.seq_len >= 1):
            raise ValueError("seconds, micro_rows and seq_len must be above zero")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CramError(f"rst.table={path}: not a table of reference times ({error}).") from None
    table.check_monotonic()
    return table


class ReferenceTime:
    """The reference system time that a run has spent.

    Args:
        table: of the reference machine.
        work: what the run has executed so far.
        overheads: whether what methods add is charged.
    """

    def __init__(self, table: ReferenceTimeTable, work: ExecutedWork, overheads: bool = True) -> None:
        self.table, self.work, self.overheads = table, work, overheads

    def seconds(self) -> float:
        """Return the seconds on the reference machine.

        Raises:
            CramError: the table has no entry for something that was executed.
        """
        return self.table.total(self.work.main) + (self.table.total(self.work.overhead) if self.overheads else 0.0)
