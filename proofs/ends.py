"""Kill every door that writes at random moments, call it again each time, and compare with a call that was left alone.

    python -m proofs.ends [kills=20] [seed=0] [doors=train,prepare,glue,export,ablate]

Every kill is a SIGKILL of the command alone: what it has begun must end by itself. Every second one waits for a moment
at which something is being written. Exit status 1 when a file differs, a process is left, or a hidden file is.
Needs /proc. Minutes: about one a kill and door, divided by four.
"""

import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from proofs.doors import DOORS, Bench, Door, family, finish, left, partial


@dataclass
class Outcome:
    """What was seen of one door."""

    kills: int = 0
    in_a_write: int = 0
    with_children: int = 0
    children_left: int = 0
    rounds: int = 0
    different: int = 0
    hidden: int = 0

    @property
    def good(self) -> bool:
        """Whether all is as it must be."""
        return not (self.children_left or self.different or self.hidden)


def kill_once(door: Door, folder: Path, log: Path, wait: float, in_a_write: bool, outcome: Outcome) -> bool:
    """Start a door and kill it after `wait` seconds. Whether it was there to be killed."""
    process = door.start(folder, log)
    until = time.monotonic() + wait
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.005)
    while in_a_write and not partial(folder) and process.poll() is None:
        time.sleep(0.001)
    if process.poll() is not None:
        return False
    children = family(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    outcome.kills += 1
    outcome.in_a_write += bool(partial(folder))
    outcome.with_children += bool(children)
    outcome.children_left += len(left(children))
    return True


def prove(door: Door, bench: Bench, kills: int, source: random.Random) -> Outcome:
    """Kill a door so often, in as many folders as it gets finished in meanwhile."""
    log, outcome = bench.folder / f"{door.name}.log", Outcome()
    alone = bench.fresh(door, f"{door.name}-alone")
    seconds = finish(door, alone, log)
    expected = door.files(alone)
    while outcome.kills < kills:
        outcome.rounds += 1
        folder = bench.fresh(door, f"{door.name}-killed")
        while outcome.kills < kills:
            if not kill_once(door, folder, log, source.uniform(0, seconds), outcome.kills % 2 == 1, outcome):
                break
        finish(door, folder, log)
        found = door.files(folder)
        wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        outcome.different += len(wrong)
        outcome.hidden += len(partial(folder))
        for what, names in (("differs", wrong), ("is left", partial(folder))):
            for name in sorted(names)[:5]:
                print(f"{door.name}: {name} {what}", flush=True)
    print(
        f"| {door.name} | {seconds:.0f} s | {outcome.kills} | {outcome.in_a_write} | {outcome.with_children} | "
        f"{outcome.rounds} | {len(expected)} | {outcome.different} | {outcome.children_left} | {outcome.hidden} |",
        flush=True,
    )
    return outcome


def main(words: list[str]) -> int:
    options = {"kills": "20", "seed": "0", "doors": "train,prepare,glue,export,ablate"}
    options |= dict(word.split("=", 1) for word in words)
    print("| door | alone | kills | amid a write | with children | rounds | files | different | left alive | hidden |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench, source = Bench(Path(folder)), random.Random(int(options["seed"]))
        doors = [DOORS[name] for name in options["doors"].split(",")]
        found = [prove(door, bench, int(options["kills"]), source) for door in doors]
    return 0 if all(outcome.good for outcome in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
