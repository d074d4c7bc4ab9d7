"""Kill a training run at random moments, resume it each time, and compare the final bytes with a straight run's.

    python bench/kills.py [kills=10] [seed=0] [words of cram.train ...]

Every kill is a SIGKILL after at least two checkpoints of that process; every second one waits until a checkpoint is
being written. Exit status 1 when a resume started from nothing or the final weights differ.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "recipe=bert_demo", "budget=1500steps", "checkpoint.interval=0.4s", "device=cpu", "batch.tokens=1024",
    "data.seq_len=64", "wordpiece.vocab_size=1024", "model.layers=2", "model.width=64", "model.heads=2",
    "model.mlp_width=128",
]  # fmt: skip


def command(words: list[str], run: Path) -> list[str]:
    return [sys.executable, "-m", "cram.train", *words, f"run={run}"]


def checkpoints(run: Path) -> set[str]:
    """Names of the checkpoints that are whole."""
    folder = run / "checkpoints"
    return {path.name for path in folder.iterdir() if path.name.isdigit()} if folder.exists() else set()


def writing(run: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    return any((run / "checkpoints").glob(".*.partial"))


def kill_once(words: list[str], run: Path, wait: float, in_a_write: bool) -> str:
    """Start or resume, kill after two checkpoints and `wait` seconds more; returns what was printed."""
    before = checkpoints(run)
    log = run.parent / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command(words, run), stdout=out, stderr=subprocess.STDOUT)
    seen: set[str] = set()
    while len(seen) < 2 and process.poll() is None:
        seen |= checkpoints(run) - before
        time.sleep(0.002)
    time.sleep(wait)
    while in_a_write and not writing(run) and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return log.read_text()


def resumed_step(said: str) -> int:
    """The update a process resumed at; 0 where it started anew."""
    return int(said.split("at update ")[1].split(",", maxsplit=1)[0]) if "at update " in said else 0


def main(words: list[str]) -> int:
    options = {"kills": "10", "seed": "0"}
    for word in list(words):
        name, _, value = word.partition("=")
        if name in options:
            options[name] = value
            words.remove(word)
    words = [*WORDS, *words]
    source = random.Random(int(options["seed"]))
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        straight, killed = Path(folder) / "straight", Path(folder) / "killed"
        words.append(f"data.dir={Path(folder) / 'shards'}")
        subprocess.run(command(words, straight), check=True, stdout=subprocess.DEVNULL)
        for kill in range(int(options["kills"])):
            step = resumed_step(kill_once(words, killed, source.uniform(0, 0.8), in_a_write=kill % 2 == 1))
            print(
                f"kill {kill + 1}: process had begun at update {step}, partial write left: {writing(killed)}",
                flush=True,
            )
            if kill and not step:
                return 1
        last = subprocess.run(command(words, killed), check=True, capture_output=True, text=True)
        print(f"last process began at update {resumed_step(last.stdout)}")
        same = (straight / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
        print("final weights", "are the same bytes" if same else "DIFFER")
        return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
