"""Stop the process of a training run for a while, as a closed lid does, and look at what its receipt says.

    python -m proofs.freeze [words of cram.train ...]

Two runs of budget=30s: one is stopped (SIGSTOP) for 10 seconds in its middle, one for 20 seconds from its second half
on, past its end. Exit status 1 where a stop is not found in the account of stalls and nowhere else, where a run does
not use what a stop leaves, where progress falls, or where the rule on the budget does not say what happened.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from cram.files.atomic import read_json
from cram.run.metrics import read_metrics
from cram.run.receipt import BUDGET_RULE

ROOT = Path(__file__).resolve().parent.parent

BUDGET = 30.0
WORDS = [
    "recipe=bert_demo", f"budget={BUDGET:g}s", "device=cpu", "batch.tokens=2048", "batch.start_tokens=null",
    "data.seq_len=64", "data.epochs=100", "wordpiece.vocab_size=1024", "model.layers=2", "model.width=64",
    "model.heads=2", "model.mlp_width=128", "log_interval=1",
]  # fmt: skip
# Seconds of training before a stop, and of the stop.
STOPS = {"middle": (8.0, 10.0), "past the end": (20.0, 20.0)}
SLACK = 1.0  # seconds that may lie between a signal and what the run does


def train(words: list[str], run: Path, after: float, seconds: float) -> dict[str, Any]:
    """Train, stop the process once, and return the receipt."""
    command = [sys.executable, "-m", "cram.train", *words, f"run={run}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    for wait, what in ((after, signal.SIGSTOP), (seconds, signal.SIGCONT)):
        time.sleep(wait)
        process.send_signal(what)
    assert process.wait() == 0
    receipt: dict[str, Any] = read_json(run / "receipt.json")
    return receipt


def faults(receipt: dict[str, Any], run: Path, stopped: float) -> list[str]:
    """What is not as it should be."""
    stalls, spent = receipt["stalls"], receipt["budget"]["spent"]
    charged = sum(receipt["time"]["charged"].values())
    rule = next(line for line in receipt["rules"] if line["rule"] == BUDGET_RULE)
    progress = [record["progress"] for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "train"]
    checks = {
        # There may be others, on a machine that is not quiet.
        f"stalls {stalls} after a stop of {stopped:g} s": abs(stalls["longest_seconds"] - stopped) < SLACK,
        f"{spent:.2f} s spent": -SLACK < spent - BUDGET < SLACK + stalls["seconds"],
        f"charged accounts sum up to {charged:.2f} s": abs(charged - spent) < 0.1,
        "progress fell": all(before <= after for before, after in pairwise(progress)) and progress[-1] == 1.0,
        f"the rule is kept: {rule['found']}": not rule["passed"],
    }
    return [name for name, right in checks.items() if not right]


def main(words: list[str]) -> int:
    """Run both and print a line for each."""
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (after, stopped) in STOPS.items():
            run = Path(folder) / name.replace(" ", "_")
            receipt = train([*WORDS, f"data.dir={folder}/shards", *words], run, after, stopped)
            wrong = faults(receipt, run, stopped)
            status |= bool(wrong)
            found = next(line["found"] for line in receipt["rules"] if line["rule"] == BUDGET_RULE)
            print(f"stopped for {stopped:g} s, {name}: {found}{''.join(f'; WRONG: {fault}' for fault in wrong)}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
