"""A run that `proofs.rank_kills` starts again and again: its starts, its phases, and the rows of its updates."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proofs.doors import environment

CASE = "decoder_muon"
UPDATES = 240  # enough that a quick machine has some left for the last fault
MICRO_ROWS = 6  # of each rank at the first start that is not ended in the preparation, which has two ranks
PATIENCE = 240.0  # seconds until a phase must have come


@dataclass
class Trial:
    """A run that is started again until it is finished.

    Attributes:
        folder: of shards, rows and run. source: text to train on.
        attempts: starts so far.
    """

    folder: Path
    source: str
    attempts: int = 0

    @property
    def log(self) -> Path:
        """What all starts have printed."""
        return self.folder / "log.txt"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "runs" / CASE / "run"

    def start(self, ranks: int, *words: str, restarts: int = 0) -> "subprocess.Popen[bytes]":
        """Start the run, or what is left of it, by torchrun."""
        torchrun = ["torch.distributed.run", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", "-m"]
        own = [
            f"batch.micro_rows={MICRO_ROWS}",
            "batch.start_tokens=null",
            "checkpoint.interval=0.5s",
            "evaluation.interval=0.3",
            f"budget={UPDATES}steps",
            *words,
        ]
        keys = [f"cases=[{CASE}]", f"folder={self.folder / 'runs'}", f"source={self.source}"]
        command = [sys.executable, "-m", *torchrun, "proofs.rank_worker", *keys, f"words=[{','.join(own)}]"]
        command.append(f"attempt={self.attempts}")
        self.attempts += 1
        with self.log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, env=environment(), process_group=0)

    def checkpoints(self) -> set[str]:
        """Names of the checkpoints that are there."""
        return {path.name for path in (self.run / "checkpoints").glob("[0-9]*")}

    def wait_for(self, phase: str, process: "subprocess.Popen[bytes]", source: random.Random) -> bool:
        """Wait for a random moment of a phase; False if the run has ended or the phase has not come."""
        before, records, heartbeat = self.checkpoints(), self.run / "metrics.jsonl", self.run / "heartbeat.json"
        partial, began = self.folder / "shards", time.time()
        size = records.stat().st_size if records.exists() else 0
        begun: dict[str, Callable[[], Any]] = {
            "preparation": lambda: any(path.stat().st_mtime > began for path in partial.glob(".*.partial/**/*")),
            "compilation": lambda: heartbeat.exists() and heartbeat.stat().st_mtime > began,
            "save": lambda: self.checkpoints() != before and list((self.run / "checkpoints").glob(".*.partial")),
            "update": lambda: self.checkpoints() != before and records.stat().st_size > size,
        }
        deadline = time.monotonic() + PATIENCE
        while not begun[phase]():
            if process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.0 if phase == "save" else 0.01)
        time.sleep({"save": 0.0, "preparation": 1.0, "update": 1.0, "compilation": 4.0}[phase] * source.random())
        return process.poll() is None

    def rows(self) -> dict[int, list[Any]]:
        """The rows of each update, as the last start that has done the update has logged them."""
        rows: dict[int, list[Any]] = {}
        paths = self.run.parent.glob("rows-*.jsonl")
        starts: dict[tuple[int, int], list[list[Any]]] = {}
        for path in paths:
            _, attempt, restart, _ = path.stem.split("-")
            starts.setdefault((int(attempt), int(restart)), []).extend(_read_whole_lines(path))
        for _, lines in sorted(starts.items()):
            if lines:
                resumed = min(line[0] for line in lines)
                rows = {update: given for update, given in rows.items() if update < resumed}
            for update, numbers, digest in lines:
                rows.setdefault(update, []).append([numbers, digest])
        return {update: sorted(given) for update, given in rows.items()}


def _read_whole_lines(path: Path) -> Iterator[Any]:
    """Read lines of JSON; the last one of a process that was killed may be cut."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def find_ranks(torchrun: int) -> dict[int, int]:
    """The process number of each rank that torchrun has started."""
    ranks: dict[int, int] = {}
    for path in Path(f"/proc/{torchrun}/task").glob("*/children"):
        for child in path.read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().decode(errors="replace").split("\0")
            ranks |= {int(word.removeprefix("RANK=")): int(child) for word in variables if word.startswith("RANK=")}
    return ranks
