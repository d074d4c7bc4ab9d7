"""Kill a preparation at random moments, start it again each time, and compare the files with a straight run's.

    python bench/kills_prepare.py data.source='texts/*.jsonl.zst' [kills=10] [seed=0] [words of cram.prepare ...]

The first two kills fall into the training of the tokenizer, the others anywhere in what is left to do. Every kill is a
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
    """Those that still run; one that has ended may wait there to be reaped."""
    stats = (Path(f"/proc/{number}/stat") for number in processes)
    return [
        number for number, stat in zip(processes, stats, strict=True) if stat.exists() and " Z " not in stat.read_text()
    ]


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
            process = start(words, killed, log)
            began = time.monotonic()
            while kill >= 2 and process.poll() is None and stage(killed).startswith(("tokenizer", "not begun")):
                time.sleep(0.05)
            # A segment or shard that is not finished begins again: some waits must be longer than one takes.
            time.sleep(source.uniform(0.02, 0.06 if kill < 2 else 0.2) * whole)
            children = workers_of(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait = time.monotonic() - began
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
