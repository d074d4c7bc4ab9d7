"""Kill a preparation at random moments, start it again each time, and compare the files with a straight run's.

    python bench/kills_prepare.py data.source='texts/*.jsonl.zst' [kills=10] [seed=0] [words of cram.prepare ...]

The first kill falls into the training of the tokenizer, the others anywhere in what is left to do. Every kill is a
SIGKILL of the command alone: its workers must end by themselves. Exit status 1 when a file differs or a worker is left.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGES = (("tokenizer", "journal/vocabulary.json"), ("scan", "journal/fates.safetensors"), ("pack", "manifest.json"))


def start(words: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """The command, with its output in a file."""
    with log.open("ab") as out:
        command = [sys.executable, "-m", "cram.prepare", *words, f"data.dir={folder}"]
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def stage(folder: Path) -> str:
    """How far a preparation has come, by the files that are there."""
    partial = next(folder.glob(".*.partial"), None)
    if partial is None:
        return "finished" if any(folder.glob("[!.]*")) else "not begun"
    for name, product in STAGES:
        if not (partial / product).is_file():
            shards, segments = (len(list(partial.glob(pattern))) for pattern in ("shard-*", "journal/scan-*.json"))
            return f"{name} ({segments} segments, {shards} shards)"
    return "finishing"


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, but for timing.json, which differs from run to run."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "timing.json")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix != ".lock"
    }


def workers_of(process: int) -> list[int]:
    """The children of a process."""
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in found.read_text().split()] if found.exists() else []


def alive(processes: list[int]) -> list[int]:
    """Those that still run."""
    return [number for number in processes if Path(f"/proc/{number}").exists()]


def main(words: list[str]) -> int:
    options = {"kills": "10", "seed": "0"}
    for word in list(words):
        name, _, value = word.partition("=")
        if name in options:
            options[name] = value
            words.remove(word)
    words = ["recipe=bert_demo", *words]
    source = random.Random(int(options["seed"]))
    os.environ["PYTHONPATH"] = str(ROOT)
    kills, left = int(options["kills"]), 0
    with tempfile.TemporaryDirectory() as name:
        straight, killed, log = Path(name) / "straight", Path(name) / "killed", Path(name) / "log"
        began = time.monotonic()
        if start(words, straight, log).wait():
            print(log.read_text())
            return 1
        whole = time.monotonic() - began
        print(f"straight run: {whole:.1f} s", flush=True)
        for kill in range(kills):
            # A killed scan or shard begins again, so waits must leave room for some work to be kept.
            wait = source.uniform(0.05, 0.15) * whole if kill == 0 else source.uniform(0.1, 0.4) * whole
            process = start(words, killed, log)
            time.sleep(wait)
            children = workers_of(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"kill {kill + 1} after {wait:.1f} s, in {stage(killed)}, {len(children)} children", flush=True)
            time.sleep(1)
            left += len(alive(children))
            if stage(killed) == "finished":
                break
        if start(words, killed, log).wait():
            print(log.read_text())
            return 1
        same = hashes(straight) == hashes(killed)
        print(f"{len(hashes(straight))} files, {'the same bytes' if same else 'DIFFERENT'}; {left} workers left behind")
        return 0 if same and not left else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
