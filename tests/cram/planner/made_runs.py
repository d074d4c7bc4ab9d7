"""Runs that follow a known law, for tests of the fits."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cram.config.config import Config
from cram.config.data import DataConfig
from cram.files.atomic import write_atomic, write_json
from cram.planner.runs import FittedRun, RunKind
from cram.run.checksums import HELD_OUT, RECEIPT, WEIGHTS, register_results, write_start_files

KIND = RunKind("pydocs", 4096, "causal", "decoder")
UNIGRAM = 6.5
SIZES = (2e4, 6e4, 2e5, 6e5, 2e6)
TOKENS = (2.5e5, 5e5, 1e6, 2e6)


def make_run(relative: float = 0.9, **figures: float) -> FittedRun:
    """A run with a relative loss; `figures` replace the usual ones."""
    usual = {"parameters": 1e5, "tokens": 1e6, "batch": 1024.0, "epochs": 0.1, "unigram_nats": UNIGRAM}
    merged = usual | {"nats": relative * UNIGRAM} | figures
    return FittedRun(name="run", kind=KIND, **merged)


def make_runs(
    relative_loss: Callable[[float, float, float], float],
    sizes: Sequence[float] = SIZES,
    tokens: Sequence[float] = TOKENS,
    batches: Sequence[float] = (1024.0,),
    noise: float = 0.0,
) -> list[FittedRun]:
    """A grid of runs by a law of parameters, tokens and batch, with log-normal noise."""
    generator = np.random.default_rng(7)
    return [
        make_run(
            relative_loss(size, count, batch) * float(np.exp(noise * generator.standard_normal())),
            parameters=size,
            tokens=count,
            batch=batch,
        )
        for size, count, batch in itertools.product(sizes, tokens, batches)
    ]


def write_run(folder: Path, run: FittedRun, failed: str | None = None, finished: bool = True, **held_out: Any) -> None:
    """Write the files of a run that `cram.planner.runs` reads; `held_out` are further figures of its receipt."""
    config = Config(data=DataConfig(source=run.kind.text))
    config.model.kind = run.kind.model
    config.objective.kind = run.kind.objective
    write_start_files(folder, config, {}, b"{}", data="of the test")
    if not finished:
        return
    receipt = {
        "failed": failed,
        "positions": run.tokens,
        "updates": run.updates,
        "epochs": run.epochs,
        "data": {"vocab_size": run.kind.vocab_size},
        "model": {"parameters": 2 * run.parameters, "parameters_without_embedding": run.parameters},
        "held_out": {"nats_per_token": run.nats, "unigram_nats_per_token": run.unigram_nats, **held_out},
    }
    records = [
        {"kind": "held_out", "step": point.tokens / run.batch, "nats_per_token": point.nats} for point in run.curve
    ]
    write_atomic(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())
    for name in (WEIGHTS, HELD_OUT):
        write_atomic(folder / name, b"")
    write_json(folder / RECEIPT, receipt)
    register_results(folder)
