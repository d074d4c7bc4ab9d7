"""What every door does when it is asked to end, and when nobody can read what it prints.

    python -m proofs.signals [doors=train,prepare,glue,export,ablate,evaluate]

Each signal is sent to the command alone once its work is under way; then the same command is called again, and must
give what a call that was left alone gives. Prints a table; exit status 1 where a line of it is not as it must be.
Needs /proc and bash.
"""

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from proofs.doors import DOORS, Bench, Door, environment, family, finish, left, partial

SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# How a shell says it, what the command must say then, and whether what it prints is lost by a fault.
OUTPUTS = {
    "closed": (">&-", "it is closed", True),
    "full": (">/dev/full", "No space left on device", True),
    "reader gone": ("| :; exit ${PIPESTATUS[0]}", "Broken pipe", False),
}
# What shows that the work of a door is under way.
UNDER_WAY = {
    "train": "run/checkpoints/[1-9]*",
    "prepare": "shards/.*.partial",
    "glue": "out/glue.json",
    "export": ".*.partial",
    "ablate": "tables/*/*/checkpoints/[1-9]*",
    "evaluate": "evaluate-*.log",
}


@dataclass(frozen=True)
class Left:
    """A call that was left alone: what it wrote, and how long it took."""

    files: dict[str, str]
    seconds: float


def signalled(door: Door, bench: Bench, name: str, alone: Left) -> tuple[str, bool]:
    """A line of the table, and whether it is as it must be."""
    folder = bench.fresh(door, f"{door.name}-{name}")
    log = folder / f"{door.name}-{name}.log"
    process = door.start(folder, log)
    while not any(folder.glob(UNDER_WAY[door.name])) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(0.3 * alone.seconds if door.name == "evaluate" else 0.0)
    children = family(process.pid)
    process.send_signal(signal.Signals[name])
    status = process.wait()
    said = log.read_text(errors="replace").splitlines()
    alive, there = len(left(children)), _there(door, folder)
    finish(door, folder, log)
    same = door.files(folder) == alone.files
    hidden = partial(folder)
    told = said[-1] if said else "nothing"
    good = status == 130 and "interrupted" in told and not (alive or hidden) and same
    again = "as alone" if same else "DIFFERENT"
    return f"{status} | {told} | {there} | {alive} | {again}{', hidden files' * bool(hidden)}", good


def unheard(door: Door, bench: Bench, name: str, alone: Left) -> tuple[str, bool]:
    """The same for a call whose standard output is lost."""
    folder = bench.fresh(door, f"{door.name}-unheard")
    where, reason, fault = OUTPUTS[name]
    shell = ["bash", "-c", f'"$0" "$@" {where}', *door.command]
    done = subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    same = door.files(folder) == alone.files
    lines = [line for line in done.stderr.splitlines() if line.startswith("cram: ")]
    wanted = 2 if fault and not door.results else 0  # of what is only printed nothing is left
    told = f"cram: standard output cannot be written ({reason}). The command goes on without it."
    good = done.returncode == wanted and lines == [told] and same and not partial(folder)
    rest = len(done.stderr.splitlines()) - len(lines)
    return (
        f"{done.returncode} | {' '.join(lines)}{f' (and {rest} lines)' * bool(rest)} | {_there(door, folder)} | 0 | "
        + ("as alone" if same else "DIFFERENT"),
        good,
    )


def _there(door: Door, folder: Path) -> str:
    """What is there, in words."""
    files, begun = len(door.files(folder)), partial(folder)
    saved = [int(path.name) for path in folder.glob(UNDER_WAY[door.name]) if path.name.isdigit()]
    words = [f"{files} files of the result"] if files else []
    words += [f"checkpoint {max(saved)}"] if saved else []
    words += [f"begun: {begun[0]}"] if begun else []
    return ", ".join(words) or "nothing"


def main(words: list[str]) -> int:
    options = {"doors": "train,prepare,glue,export,ablate,evaluate"} | dict(word.split("=", 1) for word in words)
    print("| door | what | status | message | there | left alive | result, called again after a signal |")
    print("|---|---|---|---|---|---|---|", flush=True)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for door in (DOORS[name] for name in options["doors"].split(",")):
            folder = bench.fresh(door, f"{door.name}-alone")
            seconds = finish(door, folder, bench.folder / f"{door.name}.log")
            alone = Left(door.files(folder), seconds)
            lines = {name: lambda name=name: signalled(door, bench, name, alone) for name in SIGNALS}  # noqa: B023
            lines |= {f"output {name}": lambda name=name: unheard(door, bench, name, alone) for name in OUTPUTS}  # noqa: B023
            for what, find in lines.items():
                line, good = find()
                print(f"| {door.name} | {what} | {line} |{'' if good else '  <- WRONG'}", flush=True)
                wrong += not good
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
