"""`python -m proofs.rank_worker`: a rank of the runs of `proofs.ranks`, which writes down its rows."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import torch

from cram.build import build_objective
from cram.command import run_door
from cram.config.recipe import keep_last_words, read_config, read_words
from cram.config.schema import key
from cram.distributed.launch import read_launch
from cram.objectives.batch import IGNORED, Batch
from cram.training.gradients import accumulate
from proofs.rank_cases import CASES, STEP_ROWS, words_of

ABOUT = """Do runs of proofs.ranks, which starts this command on each rank."""


@dataclass
class WorkerConfig:
    """The keys of this command."""

    cases: list[str] = key([], "names of the runs")
    folder: str = key("", "folder of the runs", path=True)
    source: str = key("", "text to train on", path=True)
    step_rows: int = key(STEP_ROWS, "rows that all ranks compute at once", "rows", least=1)
    words: list[str] = key([], "words in place of those of the runs")
    attempt: int = key(0, "number of this start of an unfinished run", least=0)


class RowLog:
    """Writes down what an objective makes of each row of the updates, whichever rank computes it.

    A line is [update, numbers and epochs of the rows of the data, hash of what the model reads and predicts].
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._update: int | None = None

    def watch_accumulation(self, accumulate: Callable[..., Any]) -> Callable[..., Any]:
        """Know whether rows are prepared for an update of the run, and for which."""

        def call(session: Any, *arguments: Any, **named: Any) -> Any:
            self._update = session.clock.updates
            try:
                return accumulate(session, *arguments, **named)
            finally:
                self._update = None

        return call

    def watch_objective(self, build: Callable[..., Any]) -> Callable[..., Any]:
        """Look at the batches of the objective that is built."""

        def call(*arguments: Any, **named: Any) -> Any:
            objective = build(*arguments, **named)
            prepare = objective.prepare

            def prepare_and_log(rows: Any, progress: float) -> Batch:
                batch: Batch = prepare(rows, progress)
                if self._update is not None:
                    self._write(rows, batch, objective.rows_joined(progress))
                return batch

            objective.prepare = prepare_and_log
            return objective

        return call

    def _write(self, rows: Any, batch: Batch, joined: int) -> None:
        seq_len = rows.tokens.shape[1]
        count = -(-len(rows.tokens) // joined)
        slots = torch.arange(count * seq_len) if batch.slots is None else batch.slots
        counts = batch.labels != IGNORED
        slots, labels = slots[counts], batch.labels[counts]
        order = slots.argsort()
        slots, labels = slots[order], labels[order]
        bounds = torch.searchsorted(slots, torch.arange(count + 1) * seq_len).tolist()
        for row in range(count):
            inside = slice(bounds[row], bounds[row + 1])
            parts = [batch.inputs.view(count, -1)[row], batch.documents.view(count, -1)[row]]
            parts += [slots[inside] - row * seq_len, labels[inside]]
            digest = hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts))
            of_data = slice(row * joined, (row + 1) * joined)
            numbers = list(zip(rows.index[of_data].tolist(), rows.epoch[of_data].tolist(), strict=True))
            print(json.dumps([self._update, numbers, digest.hexdigest()[:16]]), file=self._file)


@contextmanager
def logged_rows(path: Path) -> Iterator[None]:
    """Write down the rows of the runs in the `with` block, of this rank."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1) as file:
        log = RowLog(file)
        with (
            patch("cram.training.loop.accumulate", log.watch_accumulation(accumulate)),
            patch("cram.build.build_objective", log.watch_objective(build_objective)),
        ):
            yield


def main(words: list[str]) -> int:
    """Do the runs, one after the other."""
    from cram.fitting import fit_config

    config, launch = read_words(WorkerConfig, words), read_launch()
    for name in config.cases:
        folder = Path(config.folder) / name
        data = [f"data.source={config.source}", f"data.dir={Path(config.folder).parent / 'shards'}"]
        run = [*words_of(CASES[name], launch.size, config.step_rows), *data, f"run={folder / 'run'}", *config.words]
        with logged_rows(folder / f"rows-{config.attempt}-{launch.restart}-{launch.rank}.jsonl"):
            fit_config(read_config(keep_last_words(run)))
    return 0


if __name__ == "__main__":
    run_door(main, WorkerConfig, ABOUT, on_ranks=True)
