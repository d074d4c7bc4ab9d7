"""`python -m proofs.rank_kills`: kill and stop ranks of a run, which goes on with another number of them each time."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.files.atomic import read_json
from proofs.doors import environment, find_descendants, kill_survivors
from proofs.rank_trial import CASE, UPDATES, Trial, find_ranks

ABOUT = """Kill (SIGKILL) and stop (SIGSTOP) ranks of a run that torchrun has started: rank 0, another one, or all, in
the preparation, in the compilation, in a save and in an update.

    python -m proofs.rank_kills seed=1

The run goes on with another number of ranks each time. Then all ranks are stopped and continued, one rank is killed
under --max-restarts, and ranks that cannot read the folder of the run take part in one. Exit status 1 if the processes
of a start take more than 60 seconds to end, if one is left behind, if a row is missing or comes twice, or if the
receipt does not name the time that was lost. Takes 12 minutes on two cores."""
LONGEST_END = 60.0  # seconds from a fault to the end of all processes
PAUSE = 25.0  # seconds for which all ranks are stopped, more than a single one may be silent


@dataclass
class KillsConfig:
    """The keys of this proof."""

    seed: int = key(0, "of moments, ranks and numbers of ranks", least=0)
    source: str = key("pydocs", "text to train on, as data.source= of a recipe", path=True)
    folder: str | None = key(None, "new folder of the runs, which are kept (null: a temporary one)", path=True)
    rounds: list[int] = key([], "numbers of the faults to try, from 0 (empty: all)")


@dataclass(frozen=True)
class Fault:
    """What is done to a start: the phase, whom it meets (`first`, `other` or `all`), and the signal."""

    phase: str
    target: str
    signal: signal.Signals


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
FAULTS = (
    Fault("preparation", "first", KILL),
    Fault("preparation", "other", STOP),
    Fault("compilation", "other", KILL),
    Fault("compilation", "first", STOP),
    Fault("update", "other", KILL),
    Fault("save", "first", KILL),
    Fault("update", "first", STOP),
    Fault("save", "all", KILL),
    Fault("update", "all", KILL),
    Fault("save", "other", STOP),
)


def choose(ranks: Sequence[int], target: str, source: random.Random) -> Sequence[int]:
    """The ranks that a fault meets."""
    if target == "all":
        return ranks
    others = [rank for rank in ranks if rank]
    return [source.choice(others)] if target == "other" else [0]


def disturb(trial: Trial, fault: Fault, ranks: int, source: random.Random) -> list[str]:
    """Start the run, let a fault happen, and return what is wrong with the end of the processes."""
    words = ["compile.kind=blocks"] if fault.phase == "compilation" else []
    printed = trial.log.stat().st_size if trial.log.exists() else 0
    process = trial.start(ranks, *words)
    while len(found := find_ranks(process.pid)) < ranks and process.poll() is None:
        time.sleep(0.1)
    if not trial.wait_for(fault.phase, process, source):
        children = find_descendants(process.pid)
        process.kill()
        kill_survivors(children)
        return [f"the phase has not come (status {process.wait()}), see {trial.log}"]
    met = choose(sorted(found), fault.target, source)
    began = time.monotonic()
    for rank in met:  # at once, because a save takes milliseconds
        os.kill(found[rank], fault.signal)
    children = find_descendants(process.pid)
    wrong = []
    try:
        status = process.wait(LONGEST_END)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
        wrong.append("torchrun hangs")
    seconds = time.monotonic() - began
    if survivors := kill_survivors(children):
        wrong.append(f"{survivors} processes left behind")
    if not status:
        wrong.append("status 0")
    last = [line for line in trial.log.read_bytes()[printed:].decode().splitlines() if line.startswith("cram: ")]
    who = ", ".join(map(str, met))
    newest = max(map(int, trial.checkpoints()), default="-")
    print(
        f"| {fault.phase} | {fault.signal.name} | {who} of {ranks} | {seconds:.1f} | {last[-1] if last else 'nothing'} "
        f"| {newest} |{'  <- WRONG' if wrong else ''}",
        flush=True,
    )
    return wrong


def pause(trial: Trial, ranks: int, source: random.Random) -> list[str]:
    """Stop all ranks for a while, as a suspended machine does, and let the run go on until the next save."""
    process = trial.start(ranks)
    if not trial.wait_for("update", process, source):
        return ["no update before the pause"]
    children = find_descendants(process.pid)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.killpg(process.pid, number)
        time.sleep(PAUSE if number == signal.SIGSTOP else 0.0)
    goes_on = trial.wait_for("update", process, source) or process.poll() == 0
    process.send_signal(signal.SIGTERM)
    process.wait()
    print(
        f"| update | all stopped for {PAUSE:.0f} s | all of {ranks} | | {'goes on' if goes_on else 'ENDED'} | |",
        flush=True,
    )
    return [] if goes_on and not kill_survivors(children) else ["the run did not go on after a pause"]


def restart(trial: Trial, ranks: int, source: random.Random) -> list[str]:
    """Kill a rank under --max-restarts; the run must go on by itself, to its end."""
    process = trial.start(ranks, restarts=2)
    if not trial.wait_for("update", process, source):
        return ["no update before the restart"]
    found = find_ranks(process.pid)
    os.kill(found[choose(sorted(found), "other", source)[0]], KILL)
    status = process.wait()
    print(f"| update | SIGKILL, --max-restarts=2 | other of {ranks} | | status {status} | |", flush=True)
    return [f"status {status} with --max-restarts"] if status else []


def check_end(trial: Trial, reference: Trial) -> list[str]:
    """Compare rows and receipt with those of a run on one rank without a fault."""
    receipt, expected = read_json(trial.run / "receipt.json"), read_json(reference.run / "receipt.json")
    rows, wanted = trial.rows(), reference.rows()
    crash, given = receipt["time"]["charged"]["crash"], [number for update in rows.values() for number, _ in update]
    flat = [tuple(one) for number in given for one in number]
    print(
        f"{len(rows)} updates, {len(flat)} rows, {len(flat) - len(set(flat))} of them twice; {crash:.1f} s charged for "
        f"what was lost; {len(receipt['processes'])} processes in the receipt; held-out loss "
        f"{receipt['held_out']['nats_per_token']:.5f}, without faults {expected['held_out']['nats_per_token']:.5f}"
    )
    checks = {
        "other rows": rows == wanted,
        "rows twice": len(flat) == len(set(flat)) == receipt["rows_read"],
        "no time charged for what was lost": crash > 0,
        "another number of updates": receipt["updates"] == expected["updates"] == UPDATES,
        "another number of predicted tokens": receipt["predicted_tokens"] == expected["predicted_tokens"],
        "the run has failed": receipt["failed"] is None,
    }
    return [fault for fault, passed in checks.items() if not passed]


def check_own_folders(source: Trial, folder: Path) -> list[str]:
    """Do a run of two ranks of which the other one, in a working folder of its own, cannot read the run folder."""
    processes = []
    for rank in range(2):
        place = folder / str(rank)
        place.mkdir()
        variables: dict[str, Any] = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29571}
        keys = [f"cases=[{CASE}]", f"folder={source.folder / 'runs'}", f"source={source.source}"]
        command = [sys.executable, "-m", "proofs.rank_worker", *keys, "words=[run=run,budget=20steps]", "attempt=999"]
        environ = environment() | {name: str(value) for name, value in variables.items()}
        with (folder / f"log-{rank}.txt").open("w") as output:
            processes.append(subprocess.Popen(command, cwd=place, env=environ, stdout=output, stderr=output))
    statuses = [process.wait() for process in processes]
    done = (folder / "0" / "run" / "receipt.json").exists()
    print(f"| own working folders | | 2 ranks | | status {statuses}, receipt {'there' if done else 'MISSING'} | |")
    other = list((folder / "1").iterdir())
    return [] if done and statuses == [0, 0] and not other else ["ranks with folders of their own"]


def main(words: list[str]) -> int:
    """Do the trials and print a table."""
    config = read_words(KillsConfig, words)
    source = random.Random(config.seed)
    print(f"seed={config.seed}")
    print(
        "| phase | signal | ranks | seconds to the end | said | newest checkpoint |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        wrong = prove(config, Path(config.folder or temporary).absolute(), source)
    print(f"{len(wrong)} wrong" + "".join(f"\nWRONG: {fault}" for fault in wrong))
    return 1 if wrong else 0


def prove(config: KillsConfig, folder: Path, source: random.Random) -> list[str]:
    """Do the trials below a folder, and return what is wrong."""
    trial, reference = (Trial(folder / name, config.source) for name in ("disturbed", "undisturbed"))
    for each in (trial, reference):
        each.folder.mkdir(parents=True)
    numbers = [2, 3, 4]
    wrong, ranks = [], 0
    for number, fault in enumerate(FAULTS):
        ranks = source.choice([other for other in numbers if other != ranks])
        ranks = 2 if number == len([one for one in FAULTS if one.phase == "preparation"]) else ranks
        if not config.rounds or number in config.rounds:
            wrong += [f"{fault.phase}, {fault.signal.name}: {one}" for one in disturb(trial, fault, ranks, source)]
    wrong += pause(trial, 2, source)
    wrong += restart(trial, 3, source)
    if not (trial.run / "receipt.json").exists() and trial.start(1).wait():
        return [*wrong, f"the run does not end\n{trial.log.read_text(errors='replace')[-2000:]}"]
    if reference.start(1).wait():
        return [*wrong, "the run without faults does not end"]
    (folder / "own").mkdir()
    return [*wrong, *check_end(trial, reference), *check_own_folders(reference, folder / "own")]


if __name__ == "__main__":
    run_door(main, KillsConfig, ABOUT)
