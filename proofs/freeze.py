"""`python -m proofs.freeze`: stop the process of a training run for a while, and check its receipt."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cram.command import run_door
from cram.config.config import Config
from cram.files.atomic import read_json
from cram.run.metrics import read_metrics
from cram.run.receipt import BUDGET_RULE
from proofs.doors import ROOT

BUDGET = 30.0  # seconds
TOLERANCE = 1.0  # seconds between a signal and its effect on the run
ABOUT = f"""Stop the process of a training run for a while, as a closed laptop does, and check its receipt.

    python -m proofs.freeze model.layers=4

Two runs of budget={BUDGET:g}s: one is stopped (SIGSTOP) for 10 seconds in its middle, one for 20 seconds beginning in
its second half and ending after its end. Words are keys of a recipe. Exit status 1 if a stop is not in the account of
stalls alone, if a run does not use the time that a stop leaves, if progress falls, or if the rule on the budget in the
receipt does not report the stop."""
RECIPE = [
    "recipe=bert_demo",
    f"budget={BUDGET:g}s",
    "device=cpu",
    "batch.tokens=2048",
    "batch.start_tokens=null",
    "data.seq_len=64",
    "data.epochs=100",
    "wordpiece.vocab_size=1024",
    "model.layers=2",
    "model.width=64",
    "model.heads=2",
    "model.mlp_width=128",
    "log_interval=1",
]


@dataclass(frozen=True)
class Stop:
    """A stop of a run: its name, its beginning in seconds of training, and its length in seconds."""

    name: str
    begin: float
    seconds: float


STOPS = (Stop("middle", 8.0, 10.0), Stop("past the end", 20.0, 20.0))


def train(words: list[str], run: Path, stop: Stop) -> dict[str, Any]:
    """Train, stop the process once, and return the receipt."""
    command = [sys.executable, "-m", "cram.train", *words, f"run={run}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    time.sleep(stop.begin)
    process.send_signal(signal.SIGSTOP)
    time.sleep(stop.seconds)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    receipt: dict[str, Any] = read_json(run / "receipt.json")
    return receipt


def budget_rule(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return the line of the receipt on the rule that the budget was kept."""
    line: dict[str, Any] = next(line for line in receipt["rules"] if line["rule"] == BUDGET_RULE)
    return line


def find_faults(receipt: dict[str, Any], run: Path, stop: Stop) -> list[str]:
    """Return what is wrong with the receipt of a stopped run."""
    stalls, spent, rule = receipt["stalls"], receipt["budget"]["spent"], budget_rule(receipt)
    charged = sum(receipt["time"]["charged"].values())
    progress = [record["progress"] for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "train"]
    checks = {
        # A busy machine may add stalls of its own, so the longest one is compared.
        f"stalls {stalls} after a stop of {stop.seconds:g} s": abs(stalls["longest_seconds"] - stop.seconds)
        < TOLERANCE,
        f"{spent:.2f} s spent": -TOLERANCE < spent - BUDGET < TOLERANCE + stalls["seconds"],
        f"the charged accounts add up to {charged:.2f} s": abs(charged - spent) < 0.1,
        "progress fell": all(before <= after for before, after in pairwise(progress)) and progress[-1] == 1.0,
        f"the rule is kept: {rule['found']}": not rule["passed"],
    }
    return [fault for fault, passed in checks.items() if not passed]


def main(words: list[str]) -> int:
    """Train and stop two runs, and print a line for each."""
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for stop in STOPS:
            run = Path(folder) / stop.name.replace(" ", "_")
            receipt = train([*RECIPE, f"data.dir={folder}/shards", *words], run, stop)
            faults = find_faults(receipt, run, stop)
            status |= bool(faults)
            wrong = "".join(f"; WRONG: {fault}" for fault in faults)
            print(f"stopped for {stop.seconds:g} s, {stop.name}: {budget_rule(receipt)['found']}{wrong}")
    return status


if __name__ == "__main__":
    run_door(main, Config, ABOUT)
