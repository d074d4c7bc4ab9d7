"""A whole preparation as a user runs it, in this checkout and in another one, in turns."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cram.errors import CramError
from cram.files.atomic import read_json, sha256_file

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.1  # between two looks at the memory of the processes


@dataclass
class Preparation:
    """What one preparation took and gave.

    Attributes:
        seconds: wall seconds from the start of the command to its end.
        cpu_seconds: of the command and its workers.
        stages: wall seconds of each stage, as `timing.json` has them.
        peak_bytes: largest memory of the largest process; None where the system does not say.
        checksums: sha256 of tokenizer.json and of each shard, by file name.
    """

    seconds: float
    cpu_seconds: float
    stages: dict[str, float]
    peak_bytes: int | None
    checksums: dict[str, str] = field(repr=False)


def check_checkout(folder: str) -> Path:
    """Return the path of another checkout of this project.

    Raises:
        CramError: the folder holds none.
    """
    root = Path(folder).expanduser().resolve()
    if not (root / "cram" / "prepare.py").is_file():
        raise CramError(f"against={folder}: no file cram/prepare.py in it; give the folder of another checkout.")
    return root


def prepare_in_turns(
    checkouts: dict[str, Path], settings: dict[str, list[str]], rounds: int
) -> dict[str, list[Preparation]]:
    """Prepare in each checkout once a round, each in a process of its own; every second round in reverse order.

    Args:
        checkouts: folders by name.
        settings: for each name, the words of `python -m cram.prepare` except `data.dir`.
        rounds: how often.

    Raises:
        CramError: a preparation has failed.
    """
    runs: dict[str, list[Preparation]] = {name: [] for name in checkouts}
    for turn in range(rounds):
        for name in list(checkouts)[:: 1 if turn % 2 == 0 else -1]:
            run = prepare_checkout(checkouts[name], settings[name])
            runs[name].append(run)
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run.stages.items())
            peak = "" if run.peak_bytes is None else f", largest process {run.peak_bytes / 1e6:.0f} MB"
            print(f"{name}: {run.seconds:.1f} s ({stages}), {run.cpu_seconds:.1f} CPU s{peak}", flush=True)
    return runs


def prepare_checkout(root: Path, words: list[str]) -> Preparation:
    """Run `python -m cram.prepare` of a checkout in a folder that is removed afterwards.

    Raises:
        CramError: the command has failed; the message ends with its last lines.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(root / "kernels")))}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "cram.prepare", *words, f"data.dir={folder}"]
        began, cpu_before = time.perf_counter(), _cpu_seconds_of_children()
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=output, stderr=subprocess.STDOUT)
        peaks: dict[int, int] = {}
        while process.poll() is None:
            peaks |= _peaks_of_tree(process.pid)
            time.sleep(POLL_SECONDS)
        seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds_of_children() - cpu_before
        if process.returncode:
            output.seek(0)
            last_lines = "".join(output.readlines()[-3:]).strip()
            raise CramError(
                f"{root}: python -m cram.prepare failed with exit status {process.returncode}\n{last_lines}"
            )
        (shards,) = Path(folder).glob("*/manifest.json")
        files = [shards.with_name("tokenizer.json"), *sorted(shards.parent.glob("shard-*.safetensors"))]
        stages = read_json(shards.with_name("timing.json"))["wall_seconds"]
        checksums = {file.name: sha256_file(file) for file in files}
    return Preparation(seconds, cpu_seconds, stages, max(peaks.values(), default=None), checksums)


def _cpu_seconds_of_children() -> float:
    """CPU seconds of all processes that have ended, started by this one or by them."""
    times = os.times()
    return times.children_user + times.children_system


def _peaks_of_tree(root: int) -> dict[int, int]:
    """Return the largest memory so far, in bytes, of a process and of those below it; empty where not on Linux."""
    parents: dict[int, int] = {}
    peaks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, KeyError):  # the process has ended meanwhile
            fields = dict(line.partition(":")[::2] for line in (folder / "status").read_text().splitlines())
            parents[int(folder.name)] = int(fields["PPid"])
            peaks[int(folder.name)] = int(fields["VmHWM"].split()[0]) * 1024
    return {process: peaks[process] for process in _tree(root, parents) if process in peaks}


def _tree(root: int, parents: dict[int, int]) -> Iterator[int]:
    if root in parents:
        yield root
    for process, parent in parents.items():
        if parent == root:
            yield from _tree(process, parents)
