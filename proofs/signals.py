"""`python -m proofs.signals`: send signals to the doors, and take away their standard output."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.machine.processes import INTERRUPTED
from proofs.doors import (
    DOORS,
    Door,
    Workspace,
    choose_doors,
    environment,
    find_descendants,
    find_partial,
    kill_survivors,
    run_to_end,
)

ABOUT = """See what every door does when it is asked to end, and when its output cannot be written.

    python -m proofs.signals doors=[train,prepare]

Each signal is sent to the command alone once its work has begun. The same command is then called again, and must give
what an undisturbed call gives. Prints a table; exit status 1 if a row is wrong. Needs /proc and bash."""
SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


@dataclass(frozen=True)
class LostOutput:
    """A way to lose standard output.

    Args:
        shell: the redirection in bash.
        reason: the reason that the command must give.
        is_fault: whether it counts as a fault. A reader who has ended does not.
    """

    shell: str
    reason: str
    is_fault: bool


LOST_OUTPUTS = {
    "closed": LostOutput(">&-", "it is closed", True),
    "full": LostOutput(">/dev/full", "No space left on device", True),
    "reader gone": LostOutput("| :; exit ${PIPESTATUS[0]}", "Broken pipe", False),
}
# Globs of files that exist once the work of a door has begun.
WORK_BEGUN = {
    "train": "run/checkpoints/[1-9]*",
    "prepare": "shards/.*.partial",
    "glue": "out/glue.json",
    "export": ".*.partial",
    "ablate": "tables/*/*/checkpoints/[1-9]*",
    "evaluate": "evaluate-*.log",
}


@dataclass
class SignalsConfig:
    """The keys of this proof."""

    doors: list[str] = key(list(DOORS), "doors to call")


@dataclass(frozen=True)
class Undisturbed:
    """A call that was not disturbed: hashes of its results, and its seconds."""

    results: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Row:
    """A row of the table, and whether it is as it must be."""

    door: str
    event: str
    status: int
    message: str
    files: str
    survivors: int
    is_same: bool
    passed: bool

    def __str__(self) -> str:
        result = "as undisturbed" if self.is_same else "DIFFERENT"
        return (
            f"| {self.door} | {self.event} | {self.status} | {self.message} | {self.files} | {self.survivors} | "
            f"{result} |{'' if self.passed else '  <- WRONG'}"
        )


def send_signal(door: Door, workspace: Workspace, name: str, undisturbed: Undisturbed) -> Row:
    """Send a signal to a door at work, then call the door again."""
    folder = workspace.new_folder(door, f"{door.name}-{name}")
    log = folder / f"{door.name}-{name}.log"
    process = door.start(folder, log)
    while not any(folder.glob(WORK_BEGUN[door.name])) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(0.3 * undisturbed.seconds if door.name == "evaluate" else 0.0)
    children = find_descendants(process.pid)
    process.send_signal(signal.Signals[name])
    status = process.wait()
    lines = log.read_text(errors="replace").splitlines()
    message = lines[-1] if lines else "nothing"
    survivors, files = kill_survivors(children), _describe_files(door, folder)
    run_to_end(door, folder, log)
    is_same = door.hash_results(folder) == undisturbed.results and not find_partial(folder)
    passed = status == INTERRUPTED and "interrupted" in message and not survivors and is_same
    return Row(door.name, name, status, message, files, survivors, is_same, passed)


def lose_output(door: Door, workspace: Workspace, name: str, undisturbed: Undisturbed) -> Row:
    """Call a door whose standard output is lost. It must say so once and do its work."""
    folder, lost = workspace.new_folder(door, f"{door.name}-output"), LOST_OUTPUTS[name]
    shell = ["bash", "-c", f'"$0" "$@" {lost.shell}', *door.command]
    answer = subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=False, env=environment())
    is_same = door.hash_results(folder) == undisturbed.results and not find_partial(folder)
    lines = answer.stderr.splitlines()
    messages = [line for line in lines if line.startswith("cram: ")]
    expected = f"cram: standard output cannot be written ({lost.reason}). The command goes on without it."
    # A door without results only prints, so for it lost output is a failure.
    expected_status = 2 if lost.is_fault and not door.results else 0
    passed = answer.returncode == expected_status and messages == [expected] and is_same
    message = " ".join(messages) + (f" (and {len(lines) - len(messages)} lines)" if len(lines) > len(messages) else "")
    return Row(
        door.name, f"output {name}", answer.returncode, message, _describe_files(door, folder), 0, is_same, passed
    )


def _describe_files(door: Door, folder: Path) -> str:
    """Which files exist now: results, the newest checkpoint, and partial ones."""
    results, partial = len(door.hash_results(folder)), find_partial(folder)
    steps = [int(path.name) for path in folder.glob(WORK_BEGUN[door.name]) if path.name.isdigit()]
    words = [f"{results} files of the result"] if results else []
    words += [f"checkpoint {max(steps)}"] if steps else []
    words += [f"partial: {partial[0]}"] if partial else []
    return ", ".join(words) or "nothing"


def prove(door: Door, workspace: Workspace) -> Iterator[Row]:
    """Disturb a door in every way."""
    folder = workspace.new_folder(door, f"{door.name}-undisturbed")
    seconds = run_to_end(door, folder, workspace.folder / f"{door.name}.log")
    undisturbed = Undisturbed(door.hash_results(folder), seconds)
    for name in SIGNALS:
        yield send_signal(door, workspace, name, undisturbed)
    for name in LOST_OUTPUTS:
        yield lose_output(door, workspace, name, undisturbed)


def main(words: list[str]) -> int:
    """Disturb the chosen doors and print the table."""
    doors = choose_doors(read_words(SignalsConfig, words).doors)
    print("| door | event | status | message | files at the end | children | result, called again after a signal |")
    print("|---|---|---|---|---|---|---|", flush=True)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        for door in doors:
            for row in prove(door, workspace):
                print(row, flush=True)
                failures += not row.passed
    print(f"{failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    run_door(main, SignalsConfig, ABOUT)
