"""`python -m proofs.ends`: kill the doors that write, at random moments, and compare the results in the end."""

import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from proofs.doors import (
    WRITING_DOORS,
    Door,
    Workspace,
    choose_doors,
    find_descendants,
    find_partial,
    kill_survivors,
    run_to_end,
)

ABOUT = """Kill every door that writes at random moments, call it again each time, and compare with an undisturbed call.

    python -m proofs.ends kills=20 doors=[train,prepare]

Every kill is a SIGKILL of the command alone: its child processes must end by themselves. Every second kill waits for a
moment at which something is being written. Exit status 1 when a file differs, or a process or a hidden file is left.
Needs /proc. Takes about one minute for four kills of one door."""


@dataclass
class EndsConfig:
    """The keys of this proof."""

    kills: int = key(20, "kills of each door", "kills", least=1)
    seed: int = key(0, "of the moments", least=0)
    doors: list[str] = key(WRITING_DOORS, "doors to kill")


@dataclass
class KillCounts:
    """What was counted for one door."""

    kills: int = 0
    while_writing: int = 0
    with_children: int = 0
    surviving_children: int = 0
    rounds: int = 0
    different_files: int = 0
    hidden_files: int = 0

    @property
    def passed(self) -> bool:
        """Whether every kill was survived as it must be."""
        return not (self.surviving_children or self.different_files or self.hidden_files)


def kill_once(door: Door, folder: Path, log: Path, seconds: float, while_writing: bool, counts: KillCounts) -> bool:
    """Start a door and kill it after some seconds. False if it had ended before."""
    process = door.start(folder, log)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    while while_writing and not find_partial(folder) and process.poll() is None:
        time.sleep(0.001)
    if process.poll() is not None:
        return False
    children = find_descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    counts.kills += 1
    counts.while_writing += bool(find_partial(folder))
    counts.with_children += bool(children)
    counts.surviving_children += kill_survivors(children)
    return True


def prove(door: Door, workspace: Workspace, kills: int, source: random.Random) -> KillCounts:
    """Kill a door again and again, and print a row of the table.

    A door that gets to its end between two kills starts anew in another folder, which is called a round.
    """
    log, counts = workspace.folder / f"{door.name}.log", KillCounts()
    undisturbed = workspace.new_folder(door, f"{door.name}-undisturbed")
    seconds = run_to_end(door, undisturbed, log)
    expected = door.hash_results(undisturbed)
    while counts.kills < kills:
        counts.rounds += 1
        folder = workspace.new_folder(door, f"{door.name}-killed")
        while counts.kills < kills:
            if not kill_once(door, folder, log, source.uniform(0, seconds), counts.kills % 2 == 1, counts):
                break
        run_to_end(door, folder, log)
        results, hidden = door.hash_results(folder), find_partial(folder)
        different = [name for name in expected.keys() | results.keys() if expected.get(name) != results.get(name)]
        counts.different_files += len(different)
        counts.hidden_files += len(hidden)
        for problem, names in (("differs", different), ("is left", hidden)):
            for name in sorted(names)[:5]:
                print(f"{door.name}: {name} {problem}", flush=True)
    print(
        f"| {door.name} | {seconds:.0f} s | {counts.kills} | {counts.while_writing} | {counts.with_children} | "
        f"{counts.rounds} | {len(expected)} | {counts.different_files} | {counts.surviving_children} | "
        f"{counts.hidden_files} |",
        flush=True,
    )
    return counts


def main(words: list[str]) -> int:
    """Kill the chosen doors and print the table."""
    config = read_words(EndsConfig, words)
    doors, source = choose_doors(config.doors), random.Random(config.seed)
    print(
        "| door | undisturbed | kills | while writing | with children | rounds | files | different | alive | hidden |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        counts = [prove(door, workspace, config.kills, source) for door in doors]
    return 0 if all(one_door.passed for one_door in counts) else 1


if __name__ == "__main__":
    run_door(main, EndsConfig, ABOUT)
