"""`python -m proofs.fuzz`: thousands of odd inputs through every command."""

import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from proofs import fuzz_data, fuzz_folders, fuzz_recipes, fuzz_tokenizers, fuzz_training, fuzz_words
from proofs.fuzz_run import BAD_OUTCOMES, OUTCOMES, Case, judge_case, remove_case, run_case, warm_up

ABOUT = """Run thousands of odd inputs through every command: each must be refused shortly, or accepted and right.

    python -m proofs.fuzz cases=1000 groups=[words,edges] to=fuzz.json
    python -m proofs.fuzz case=words:12

Cases are forked from a warm process, two at a time. The outcome of a case is one of: refused (exit status 2 with one or
two lines), accepted, reported failure (status 1 with a line), traceback, signal, no end, accepted wrongly. The last
four are bad and give exit status 1. Rules that do not use cram's code judge whether an accepted case is right."""
GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {
    **fuzz_words.GROUPS,
    **fuzz_recipes.GROUPS,
    **fuzz_data.GROUPS,
    **fuzz_tokenizers.GROUPS,
    **fuzz_folders.GROUPS,
    **fuzz_training.GROUPS,
}
NEEDS_BASE = (*fuzz_folders.GROUPS, *fuzz_training.GROUPS)  # groups whose cases copy a run and its folders
# The share of each group among all cases.
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


@dataclass
class FuzzConfig:
    """The keys of this proof."""

    cases: int = key(11_500, "cases of all groups together", "cases", least=1)
    groups: list[str] = key(list(GROUPS), "groups of cases to run")
    seed: int = key(0, "of the cases", least=0)
    case: str | None = key(None, "GROUP:NUMBER of one case, which is run again and shown")
    to: str | None = key(None, "file for the outcome of every case (null: none)", path=True)


def make_cases(group: str, total: int, seed: int) -> list[Case]:
    """Make the cases of a group: its share of `total`."""
    count = max(1, round(total * SHARES[group]))
    return list(GROUPS[group](random.Random(f"{seed} {group}"), count))


def run_cases(cases: list[tuple[str, Case]], folder: Path, to: Path) -> None:
    """Run named cases one after the other, and write a line of JSON for each."""
    with to.open("w") as lines:
        for name, case in cases:
            case_folder = folder / name.replace(":", "-")
            result = run_case(case, case_folder)
            outcome, reason = judge_case(case, case_folder, result)
            line = {"case": name, "about": case.about, "outcome": outcome, "why": reason, "seconds": result.seconds}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            remove_case(case_folder)


def run_in_parallel(cases: list[tuple[str, Case]], folder: Path, processes: int = PROCESSES) -> list[dict[str, str]]:
    """Run named cases in several processes. Returns their lines in the order of the cases."""
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run_cases(cases[number::processes], folder / str(number), folder / f"{number}.jsonl")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    texts = [(folder / f"{number}.jsonl").read_text() for number in range(processes)]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    if any(statuses) or len(lines) != len(cases):
        sys.exit(f"the proof itself broke after {len(lines)} of {len(cases)} cases")
    order = {name: number for number, (name, _) in enumerate(cases)}
    return sorted(lines, key=lambda line: order[line["case"]])


def show_case(name: str, total: int, seed: int) -> None:
    """Run one case again and print all that it prints.

    Raises:
        CramError: there is no such case.
    """
    group, _, number = name.partition(":")
    cases = make_cases(group, total, seed) if group in GROUPS else []
    if not number.isdecimal() or int(number) >= len(cases):
        raise CramError(f"case={name} is unknown. Give GROUP:NUMBER, with one of the groups {', '.join(GROUPS)}.")
    case = cases[int(number)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        if group in NEEDS_BASE:
            fuzz_folders.make_base(folder / "made")
        result = run_case(case, folder / "case")
        print(f"{case.about}\n{result.out}\n{result.err}")
        print(judge_case(case, folder / "case", result), f"{result.seconds:.1f} s")


def print_outcomes(lines: list[dict[str, str]], seconds: float) -> int:
    """Print the number of cases by group and outcome, and every bad case. Returns the number of bad cases."""
    counts = Counter((line["case"].partition(":")[0], line["outcome"]) for line in lines)
    groups = list(dict.fromkeys(line["case"].partition(":")[0] for line in lines))
    print(f"{'':<12}" + "".join(f"{name:>18}" for name in OUTCOMES))
    for group in groups:
        print(f"{group:<12}" + "".join(f"{counts[group, name]:>18,}" for name in OUTCOMES))
    totals = Counter(line["outcome"] for line in lines)
    print(f"{'all':<12}" + "".join(f"{totals[name]:>18,}" for name in OUTCOMES))
    bad = [line for line in lines if line["outcome"] in BAD_OUTCOMES]
    for line in bad:
        print(f"{line['outcome']}: case={line['case']} {line['about']!r:.160}\n    {line['why']!r:.240}")
    print(f"{len(lines):,} cases in {seconds:.0f} s, {len(bad)} of them bad")
    return len(bad)


def main(words: list[str]) -> int:
    """Run the cases and print their outcomes.

    Raises:
        CramError: there is no group of such a name.
    """
    config = read_words(FuzzConfig, words)
    for name in config.groups:
        if name not in GROUPS:
            raise CramError(f"groups={name} is unknown. Choose from {', '.join(GROUPS)}.")
    warm_up()
    if config.case:
        show_case(config.case, config.cases, config.seed)
        return 0
    cases = [
        (f"{group}:{number}", case)
        for group in config.groups
        for number, case in enumerate(make_cases(group, config.cases, config.seed))
    ]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if set(config.groups) & set(NEEDS_BASE):
            fuzz_folders.make_base(Path(folder).resolve() / "made")
        lines = run_in_parallel(cases, Path(folder).resolve())
    if config.to:
        Path(config.to).write_text(json.dumps(lines, indent=1) + "\n")
    return 1 if print_outcomes(lines, time.monotonic() - start) else 0


if __name__ == "__main__":
    run_door(main, FuzzConfig, ABOUT)
