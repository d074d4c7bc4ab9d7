"""`python -m bench.ranks`: training by two ranks of one thread beside one process of two threads, on the same cores."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.options import OUT_HELP, results_folder
from bench.timing import describe_machine, percentiles, write_results
from cram.command import run_door
from cram.config.recipe import keep_last_words, read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import read_metrics

ABOUT = """Train with several ranks of one thread each beside one process with as many threads, in turns.

    python -m bench.ranks ranks=2 rounds=5 words=[batch.tokens=16384]

Prints the tokens a second of both, their ratio, what the ranks exchange in an update, how long they wait for each
other, and how much state of the optimizer a rank holds (also of four ranks). Writes ranks.json. Nothing else should run
on the machine; each round takes about a minute."""
WARMING_UPDATES = 4
TRAINING = [
    "recipe=bert_demo",
    "model.size=given",
    "model.layers=4",
    "model.width=256",
    "model.heads=4",
    "model.mlp_width=384",
    "data.seq_len=128",
    "data.tokens=1500000",
    "data.epochs=10",
    "wordpiece.vocab_size=8192",
    "batch.tokens=8192",
    "batch.start_tokens=null",
    "optimizer.kind=muon",
    "evaluation.interval=null",
    "report.live=false",
    "log_interval=1",
    "device=cpu",
]


@dataclass
class RanksConfig:
    """The keys of this benchmark."""

    source: str = key("pydocs", "text to train on, as data.source= of a recipe", path=True)
    ranks: int = key(2, "number of ranks, and threads of the one process", least=2, most=64)
    rounds: int = key(5, "runs of each", least=2)
    updates: int = key(24, "updates of a run; the first four are not counted", "updates", least=WARMING_UPDATES + 2)
    precisions: list[str] = key(["fp32", "bf16"], "precisions of the forward pass")
    words: list[str] = key([], "words in place of those of the training")
    data: str | None = key(None, "folder of the shards, which is kept (null: a temporary one)", path=True)
    out: str | None = key(None, OUT_HELP, path=True)


@dataclass(frozen=True)
class Pace:
    """What was measured of a run.

    Attributes:
        tokens_per_second: of the updates behind the first ones.
        waiting_share: part of its time in which a rank has waited for others; None for one process.
        ranks: figures of `bench.ranks_worker.Figures`, of each rank.
    """

    tokens_per_second: float
    waiting_share: float | None
    ranks: list[dict[str, Any]]


def train(folder: Path, ranks: int, threads: int, updates: int, words: Sequence[str]) -> Pace:
    """Train in a new folder.

    Raises:
        CramError: the training has failed.
    """
    folder.mkdir()
    start = [] if ranks == 1 else ["torch.distributed.run", f"--nproc-per-node={ranks}", "-m"]
    own = [f"threads={threads}", f"budget={updates}steps", f"run={folder / 'run'}"]
    command = [sys.executable, "-m", *start, "bench.ranks_worker", str(folder), *keep_last_words([*words, *own])]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if answer.returncode:
        raise CramError(f"the training on {ranks} rank(s) has failed:\n{answer.stderr[-2000:]}")
    records = [record for record in read_metrics(folder / "run" / "metrics.jsonl") if record["kind"] == "train"]
    first, last = records[WARMING_UPDATES - 1], records[-1]
    seconds = last["charged_seconds"] - first["charged_seconds"]
    figures = [read_json(folder / f"rank-{rank}.json") for rank in range(ranks)]
    waiting = None
    if ranks > 1:
        state = Checkpoints(folder / "run").read_newest_state()
        assert state is not None
        waiting = state["rank_waiting"] / last["charged_seconds"]
    return Pace((last["positions"] - first["positions"]) / seconds, waiting, figures)


def compare(config: RanksConfig, folder: Path, words: list[str], precision: str) -> dict[str, Any]:
    """Train by several ranks and by one process in turns, every second round in reverse order."""
    contenders = {"ranks": (config.ranks, 1), "one process": (1, config.ranks)}
    paces: dict[str, list[Pace]] = {name: [] for name in contenders}
    for turn in range(config.rounds):
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            ranks, threads = contenders[name]
            place = folder / f"{precision}-{turn}-{name.replace(' ', '-')}"
            paces[name].append(train(place, ranks, threads, config.updates, [*words, f"precision={precision}"]))
    rates = {name: [pace.tokens_per_second for pace in of_name] for name, of_name in paces.items()}
    ratios = [ranks / one for ranks, one in zip(rates["ranks"], rates["one process"], strict=True)]
    newest = paces["ranks"][-1]
    return {
        "precision": precision,
        "tokens_per_second": {name: percentiles(values) for name, values in rates.items()},
        "ratio": percentiles(ratios),
        "waiting_share": median(pace.waiting_share or 0.0 for pace in paces["ranks"]),
        "exchanged_bytes": {
            name: newest.ranks[0][f"{name}_bytes"] / config.updates for name in ("reduce_scatter", "all_gather")
        },
        "exchanges": {name: newest.ranks[0][name] / config.updates for name in ("reduce_scatter", "all_gather")},
    }


def optimizer_bytes(folder: Path, words: list[str]) -> dict[str, list[int]]:
    """Bytes of optimizer state of each rank, by real updates with 1, 2 and 4 ranks."""
    held = {}
    for ranks in (1, 2, 4):
        pace = train(folder / f"memory-{ranks}", ranks, 1, WARMING_UPDATES + 1, [*words, "precision=fp32"])
        held[str(ranks)] = [rank["optimizer_bytes"] for rank in pace.ranks]
    return held


def main(words: list[str]) -> int:
    """Measure, print a line for each precision, and write the results."""
    config = read_words(RanksConfig, words)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = [f"data.source={config.source}", f"data.dir={config.data or folder / 'shards'}"]
        training = keep_last_words([*TRAINING, *data, *config.words])
        held = optimizer_bytes(folder, training)
        for ranks, of_ranks in held.items():
            print(
                f"optimizer state of {ranks} rank(s): {json.dumps([round(one / 1e6, 2) for one in of_ranks])} MB each"
            )
        results = []
        for precision in config.precisions:
            result = compare(config, folder, training, precision)
            results.append(result)
            print(format_line(result, config.ranks), flush=True)
    machine = describe_machine(torch.device("cpu"))
    path = write_results(
        {"machine": machine, "words": training, "optimizer_bytes": held, "results": results},
        results_folder(config.out),
        "ranks",
    )
    print(path)
    return 0


def format_line(result: dict[str, Any], ranks: int) -> str:
    """Return the comparison of a precision as a line."""
    rates, ratio = result["tokens_per_second"], result["ratio"]
    exchanged = sum(result["exchanged_bytes"].values()) / 1e6
    return (
        f"{result['precision']}: {ranks} ranks of one thread {rates['ranks']['median']:,.0f} tokens a second, one "
        f"process of {ranks} threads {rates['one process']['median']:,.0f} | ratio {ratio['median']:.3f} "
        f"({ratio['p20']:.3f} to {ratio['p80']:.3f}) | {exchanged:.1f} MB exchanged in an update, "
        f"{result['waiting_share']:.1%} of the time waiting"
    )


if __name__ == "__main__":
    run_door(main, RanksConfig, ABOUT)
