"""`bench/first_light.sh`: what to run first on a new GPU, in the order of need, within 25 minutes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.first_light_steps import STEPS, Command
from bench.options import choose
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.machine.processes import start_child

ABOUT = """Run on a new GPU what answers the first questions about it, within 25 minutes and without a network.

    bench/first_light.sh
    bench/first_light.sh tune cram
    bench/first_light.sh --tiny out=/tmp/first_light

The steps, in this order:

""" + "\n".join(f"    {name:8} {step.limit:3.0f} s  {step.question}" for name, step in STEPS.items())
ABOUT += """

Every step writes its results as it goes into a folder of its own, OUT/NAME, and what it prints into OUT/NAME/log.txt.
A step that fails or takes longer than its limit is reported, and the next one begins. OUT/first_light.json says how
each step has ended. Called again, the command goes on with the steps that have not ended, then tries those again that
had failed. A step that is named is run again in any case.

With --tiny every step has tiny sizes, also on a CPU. This shows that the steps work, and measures nothing.
Exit status 1 if a step has no result."""

RECORD, LOG = "first_light.json", "log.txt"
DONE = "done"
PATIENCE = 15.0  # seconds that a step has to save its state when its time is over
SILENCE = 30.0  # seconds without output after which the time is printed

Record = dict[str, Any]
Execute = Callable[[Command, Path, float], int | None]


@dataclass
class FirstLightConfig:
    """What `bench/first_light.sh` takes."""

    steps: list[str] = key([], f"of {', '.join(STEPS)} (empty: all that have no result yet)")
    tiny: bool = key(False, "tiny sizes, also on a CPU")
    out: str = key("runs/first_light", "folder of the results", path=True)


# --- one step


def execute(command: Command, log: Path, limit: float) -> int | None:
    """Run a command and print what it writes to its log.

    Returns:
        Its exit status; None if it was stopped because the limit, in seconds, was over.
    """
    with log.open("w") as output, log.open(errors="replace") as printed:
        process = start_child(command, output)
        began = heard = time.monotonic()
        try:
            while process.poll() is None:
                now = time.monotonic()
                if now - began > limit:
                    return None
                if text := printed.read():
                    print(text, end="", flush=True)
                    heard = now
                elif now - heard > SILENCE:
                    print(f"[{now - began:.0f} s]", flush=True)
                    heard = now
                time.sleep(0.1)
        finally:
            end_group(process)
            print(printed.read(), end="", flush=True)
        return process.returncode


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process that still runs, and its children. It first gets a signal at which it can save its state."""
    if process.poll() is not None:
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):  # where nothing of the group is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, which tells how a command ended."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def run_step(name: str, out: Path, tiny: bool, execute: Execute) -> Record:
    """Run a step. Returns its record: how it ended, and which files it wrote."""
    step, folder = STEPS[name], out / name
    folder.mkdir(parents=True, exist_ok=True)
    command = step.command(out, tiny)
    began = time.monotonic()
    status = execute(command, folder / LOG, step.limit)
    seconds = time.monotonic() - began
    state = DONE if status == 0 else f"stopped after {step.limit:.0f} s" if status is None else f"failed ({status})"
    results = sorted(path for place in ("*.json", "run/*.json") for path in folder.glob(place))
    return {
        "state": state,
        "seconds": round(seconds, 1),
        "last_line": last_line(folder / LOG),
        "results": [str(path.relative_to(out)) for path in results],
        "command": command,
        "tiny": tiny,
    }


# --- all steps


def order_steps(asked: list[str], records: dict[str, Record]) -> list[str]:
    """Return the steps to run: those asked for, else those without a result, the ones that have failed last.

    A failed step waits for the others, so that it does not take their time again. A step that was cut off has no
    record.
    """
    if asked:
        return choose("steps", asked, STEPS)
    untried = [name for name in STEPS if name not in records]
    return untried + [name for name in STEPS if name in records and records[name]["state"] != DONE]


def read_records(path: Path, tiny: bool) -> dict[str, Record]:
    """Return how the steps of an earlier call have ended.

    Raises:
        CramError: the folder has results with tiny sizes, and those of full size are asked for, or the other way round.
    """
    records: dict[str, Record] = read_json(path)["steps"] if path.exists() else {}
    if any(record["tiny"] != tiny for record in records.values()):
        sizes = ("full", "tiny") if tiny else ("tiny", "full")
        raise CramError(
            f"{path}: has results of {sizes[0]} size, not of {sizes[1]} size. Choose another folder by out=."
        )
    return records


def run_steps(config: FirstLightConfig, execute: Execute) -> dict[str, Record]:
    """Run the steps, and write the record after each."""
    out = Path(config.out).resolve()
    records = read_records(out / RECORD, config.tiny)
    for name in order_steps(config.steps, records):
        print(f"\n=== {name}: {STEPS[name].question} (at most {STEPS[name].limit:.0f} s)", flush=True)
        records.pop(name, None)
        write_json(out / RECORD, {"steps": records})
        records[name] = run_step(name, out, config.tiny, execute)
        write_json(out / RECORD, {"steps": records})
        print(f"=== {name}: {records[name]['state']} ({records[name]['seconds']:.0f} s)", flush=True)
    return records


def print_summary(records: dict[str, Record], out: str) -> None:
    """Print a line for each step."""
    print(f"\n{out}/{RECORD}")
    for name in STEPS:
        record = records.get(name, {"state": "not run", "seconds": 0.0, "last_line": ""})
        print(f"{name:8} {record['state']:18} {record['seconds']:4.0f} s  {record['last_line'][:90]}")


def main(words: list[str], execute: Execute = execute) -> int:
    """Run the steps that the words ask for. Returns 1 if a step has no result.

    Raises:
        CramError: there is no GPU, and `tiny` was not asked for.
    """
    config = read_words(FirstLightConfig, words)
    if not config.tiny and not torch.cuda.is_available():
        raise CramError("torch finds no CUDA device here. tiny=true tries all steps on the CPU, at tiny sizes.")
    records = run_steps(config, execute)
    print_summary(records, config.out)
    return 0 if all(name in records and records[name]["state"] == DONE for name in STEPS) else 1


if __name__ == "__main__":
    run_door(main, FirstLightConfig, ABOUT)
