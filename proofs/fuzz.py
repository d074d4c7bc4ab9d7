"""Thousands of odd inputs through every command: refused in a line or two, or accepted and right.

    python -m proofs.fuzz [cases=11500] [seed=0] [groups=words,edges,...] [to=fuzz.json] [case=GROUP:NUMBER]

Every case is forked from one warm process, two at a time. An outcome is one of: refused (exit status 2 and one or two
lines), accepted, failed as said (status 1 and a line), traceback, ended by a signal, no end, accepted wrongly; the last
four must not be, and give exit status 1. What is accepted is compared with a rule that does not use our code. `case=`
runs one again and shows what it printed.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from proofs import fuzz_data, fuzz_folders, fuzz_tokenizers, fuzz_words
from proofs.fuzz_run import BAD, OUTCOMES, Case, clear, outcome_of, run_case, warm_up

GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {
    **fuzz_words.GROUPS,
    **fuzz_data.GROUPS,
    **fuzz_tokenizers.GROUPS,
    **fuzz_folders.GROUPS,
}
# Of all cases, how many are of each group.
SHARES = {
    "words": 0.29,
    "edges": 0.3,
    "recipes": 0.15,
    "tables": 0.05,
    "data": 0.1,
    "tokenizers": 0.05,
    "folders": 0.05,
    "runs": 0.01,
}
PROCESSES = 2


def made(group: str, cases: int, seed: int) -> list[Case]:
    """The cases of a group among so many in all."""
    count = max(1, round(cases * SHARES[group]))
    return list(GROUPS[group](random.Random(f"{seed} {group}"), count))


def run_share(cases: list[tuple[str, Case]], folder: Path, to: Path) -> None:
    """Run cases one after the other and write a line of JSON for each."""
    with to.open("w") as lines:
        for name, case in cases:
            here = folder / name.replace(":", "-")
            result = run_case(case, here)
            outcome, why = outcome_of(case, here, result)
            line = {"case": name, "about": case.about, "outcome": outcome, "why": why, "seconds": result.seconds}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            clear(here)


def run_all(cases: list[tuple[str, Case]], folder: Path, processes: int = PROCESSES) -> list[dict[str, str]]:
    """Run cases on several processes; their lines in order."""
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run_share(cases[number::processes], folder / str(number), folder / f"{number}.jsonl")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    failed = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    lines = [json.loads(line) for n in range(processes) for line in (folder / f"{n}.jsonl").read_text().splitlines()]
    if any(failed) or len(lines) != len(cases):
        sys.exit(f"the proof itself broke after {len(lines)} of {len(cases)} cases")
    order = {name: number for number, (name, _) in enumerate(cases)}
    return sorted(lines, key=lambda line: order[line["case"]])


def show_one(name: str, cases: int, seed: int) -> int:
    """Run one case again and show all of it."""
    group, _, number = name.partition(":")
    case = made(group, cases, seed)[int(number)]
    with tempfile.TemporaryDirectory() as folder:
        if group in fuzz_folders.GROUPS:
            fuzz_folders.make_base(Path(folder).resolve() / "made")
        here = Path(folder).resolve() / "case"
        result = run_case(case, here)
        print(f"{case.about}\n{result.out}\n{result.err}")
        print(outcome_of(case, here, result), f"{result.seconds:.1f} s")
    return 0


def print_table(lines: list[dict[str, str]], seconds: float) -> int:
    """Print counts by group and outcome, and every bad case. The number of bad ones."""
    counts = Counter((line["case"].partition(":")[0], line["outcome"]) for line in lines)
    groups = list(dict.fromkeys(line["case"].partition(":")[0] for line in lines))
    print(f"{'':<12}" + "".join(f"{name:>18}" for name in OUTCOMES))
    for group in [*groups, "all"]:
        row = [sum(counts[one, name] for one in groups if group in (one, "all")) for name in OUTCOMES]
        print(f"{group:<12}" + "".join(f"{number:>18,}" for number in row))
    bad = [line for line in lines if line["outcome"] in BAD]
    for line in bad:
        print(f"{line['outcome']}: case={line['case']} {line['about']!r:.160}\n    {line['why']!r:.240}")
    print(f"{len(lines):,} cases in {seconds:.0f} s, {len(bad)} of them bad")
    return len(bad)


def main() -> int:
    said = dict(word.split("=", 1) for word in sys.argv[1:])
    total, seed = int(said.get("cases", 11_500)), int(said.get("seed", 0))
    warm_up()
    if "case" in said:
        return show_one(said["case"], total, seed)
    chosen = said.get("groups", ",".join(GROUPS)).split(",")
    cases = [(f"{group}:{n}", case) for group in chosen for n, case in enumerate(made(group, total, seed))]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if set(chosen) & set(fuzz_folders.GROUPS):
            fuzz_folders.make_base(Path(folder).resolve() / "made")
        lines = run_all(cases, Path(folder).resolve())
    if "to" in said:
        Path(said["to"]).write_text(json.dumps(lines, indent=1) + "\n")
    return bool(print_table(lines, time.monotonic() - began))


if __name__ == "__main__":
    sys.exit(main())
