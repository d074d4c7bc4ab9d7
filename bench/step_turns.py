"""The updates of a training run in this checkout and in another one, in turns, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from cram.errors import CramError

WORKER = Path(__file__).with_name("step_worker.py")
WARMING_UPDATES, UPDATES = 2, 2


@contextmanager
def run_worker(root: Path, threads: int, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a worker with the modules of a checkout. It ends with the block."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(root / "kernels")))}
    command = [sys.executable, "-P", str(WORKER), str(threads), *words]
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def time_worker(root: Path, process: subprocess.Popen[str], updates: int) -> tuple[float, float]:
    """Let a worker do some updates, and return the CPU and wall seconds of one.

    Raises:
        CramError: the worker has ended; what it wrote to the standard error stands above the message.
    """
    assert process.stdin is not None and process.stdout is not None
    try:
        print(updates, file=process.stdin, flush=True)
        cpu, wall = json.loads(process.stdout.readline())
    except (OSError, json.JSONDecodeError):
        raise CramError(f"{root}: the training run has failed, as its own message above says.") from None
    return cpu / updates, wall / updates


def compare_updates(checkouts: dict[str, Path], threads: int, words: list[str], rounds: int) -> dict[str, Any]:
    """Time updates in two checkouts in turns, every second round in reverse order.

    Args:
        checkouts: this checkout and another one, folders by name.
        threads: of each process.
        words: of the training run.
        rounds: turns of each.

    Returns:
        For each checkout the median CPU and wall seconds of an update, and how many times the first one's are in the
        second one's (`cpu_ratio`, `wall_ratio`).

    Raises:
        CramError: one of the runs has failed.
    """
    first, second = checkouts
    with run_worker(checkouts[first], threads, words) as ours, run_worker(checkouts[second], threads, words) as theirs:
        workers = {first: ours, second: theirs}
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
        for name, worker in workers.items():
            time_worker(checkouts[name], worker, WARMING_UPDATES)
        for turn in range(rounds):
            for name in list(workers)[:: 1 if turn % 2 == 0 else -1]:
                seconds[name].append(time_worker(checkouts[name], workers[name], UPDATES))
    result: dict[str, Any] = {"words": words, "threads": threads}
    for name, values in seconds.items():
        cpu, wall = zip(*values, strict=True)
        result[name] = {"cpu_seconds": median(cpu), "wall_seconds": median(wall)}
    for kind in ("cpu", "wall"):
        result[f"{kind}_ratio"] = result[second][f"{kind}_seconds"] / result[first][f"{kind}_seconds"]
    return result


def format_line(name: str, result: dict[str, Any]) -> str:
    """Return one comparison as a line: milliseconds of CPU time of an update on each side, and both ratios."""
    sides = ", ".join(f"{side} {result[side]['cpu_seconds'] * 1e3:.0f} ms" for side in ("ours", "theirs"))
    return (
        f"{name}: {sides} of CPU time | ratio {result['cpu_ratio']:.3f} by CPU time, {result['wall_ratio']:.3f} by wall"
    )
