"""`python -m proofs.report`: pages of every kind, in a browser at both widths and both themes."""

import json
import math
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from proofs.browser import Browser, Tab, find_chromium
from proofs.doors import DOORS, Workspace, environment, run_to_end

ABOUT = """Make a page of every kind, open each in Chromium, and take its picture at two widths, light and dark.

    python -m proofs.report to=pages
    python -m proofs.report to=pages pages=['run=runs/demo run=runs/adamw','data=shards/pydocs']

The kinds: a finished run, one that was killed and continued, one that was killed, one with faults, three runs beside
each other, a table of arms, shards, GLUE results, a plan, and a run of 100,000 metric lines, whose command is timed.
Exit status 1 if the console has a message, a page asks for anything, a page is wider than its window, or the long run
takes longer than it may. Takes about three minutes."""

WIDTHS = (1280, 390)
HEIGHT = 900
TRAIN = DOORS["train"]


@dataclass
class ReportProofConfig:
    """The keys of this proof."""

    to: str = key("build/report-pages", "folder for pages and pictures", path=True)
    pages: list[str] = key([], "words of cram.report for pages beside those that the proof makes")
    own: bool = key(True, "make the pages of every kind; false: only those of pages=")
    lines: int = key(100_000, "metric lines of the long run", "lines", least=10)
    seconds: float = key(3.0, "longest time of the command for the long run", "s", least=0)


@dataclass
class PageCounts:
    """What was found on one page."""

    name: str
    seconds: float
    kilobytes: float
    messages: list[str]
    requests: list[str]
    too_wide: list[str]

    @property
    def passed(self) -> bool:
        """Whether the page is as it must be."""
        return not (self.messages or self.requests or self.too_wide)


def make_subjects(workspace: Workspace, lines: int) -> Iterator[tuple[str, list[str]]]:
    """Make folders of every kind, and give the name of each page with the words that make it."""
    folder = workspace.new_folder(TRAIN, "finished")
    run_to_end(TRAIN, folder, workspace.folder / "finished.log")
    yield "finished", [f"run={folder / 'run'}"]
    yield "data", [f"data={next((folder / 'shards').glob('*/manifest.json')).parent}"]
    yield "long", [f"run={make_long_run(folder / 'run', workspace.folder / 'long', lines)}"]
    killed = kill_training(workspace, "killed")
    yield "killed", [f"run={killed / 'run'}"]
    resumed = kill_training(workspace, "resumed")
    run_to_end(TRAIN, resumed, workspace.folder / "resumed.log")
    yield "resumed", [f"run={resumed / 'run'}"]
    faulty = replace(TRAIN, words=(*TRAIN.words, "optimizer.lr=2", "optimizer.embedding_lr=2", "seed=1"))
    faults = workspace.new_folder(faulty, "faults")
    faulty.start(faults, workspace.folder / "faults.log").wait()  # it may end as a failed run, which has a page too
    yield "faults", [f"run={faults / 'run'}"]
    yield "comparison", [f"run={one / 'run'}" for one in (folder, resumed, faults)]
    for name, word, results in (
        ("ablate", "table", "tables/*"),
        ("glue", "glue", "out"),
        ("plan", "plan", "plan.yaml"),
    ):
        made = workspace.new_folder(DOORS[name], name)
        run_to_end(DOORS[name], made, workspace.folder / f"{name}.log")
        yield word, [f"{word}={next(made.glob(results))}"]


def kill_training(workspace: Workspace, name: str) -> Path:
    """Train until there is a checkpoint after the first update, and kill the command."""
    folder = workspace.new_folder(TRAIN, name)
    process = TRAIN.start(folder, workspace.folder / f"{name}.log")
    while process.poll() is None and not any((folder / "run" / "checkpoints").glob("[1-9]*/state.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return folder


def make_long_run(run: Path, to: Path, lines: int) -> Path:
    """Copy a run, and give it so many lines of metrics, of which a thousandth is of evaluations."""
    shutil.copytree(run, to)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train, held_out = (next(record for record in records if record["kind"] == kind) for kind in ("train", "held_out"))
    source = random.Random(0)
    with (to / "metrics.jsonl").open("w") as file:
        for number in range(1, lines + 1):
            record = held_out if number % 1000 == 0 else train
            file.write(json.dumps(_vary(record, number, lines, source)) + "\n")
    return to


def _vary(record: dict[str, Any], number: int, lines: int, source: random.Random) -> dict[str, Any]:
    """A record as it might stand in this line: places ascend, the loss falls, and every number has noise."""
    loss = 3 + 6 * math.exp(-8 * number / lines)

    def noisy(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: noisy(inner) for name, inner in value.items()}
        return value * source.uniform(0.9, 1.1) if isinstance(value, float) else value

    places = {
        "step": number,
        "time": record["time"] + number,
        "charged_seconds": float(number),
        "positions": 4096 * number,
        "flops": 1e9 * number,
        "progress": number / lines,
    }
    losses = {name: loss * source.uniform(0.95, 1.05) for name in ("loss", "nats_per_token") if name in record}
    varied = {name: noisy(value) for name, value in record.items()}
    return varied | {name: value for name, value in places.items() if name in record} | losses


def write_page(words: list[str], path: Path) -> float:
    """Call `cram.report`, and return its seconds.

    Raises:
        CramError: the command fails.
    """
    command = [sys.executable, "-m", "cram.report", *words, f"to={path}"]
    start = time.monotonic()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CramError(f"{shlex.join(command)} ended with status {done.returncode}: {done.stderr.strip()}")
    return time.monotonic() - start


def look_at(browser: Browser, page: Path, seconds: float) -> PageCounts:
    """Open a page at each width and in each theme, take its picture, and count what must not be."""
    counts = PageCounts(page.stem, seconds, page.stat().st_size / 1000, [], [], [])
    for width in WIDTHS:
        for theme in ("light", "dark"):
            with browser.tab() as tab:
                tab.resize(width, HEIGHT, dark=theme == "dark")
                tab.open(page)
                tab.settle()
                _try_controls(tab)
                tab.take_picture(page.with_name(f"{page.stem}-{width}-{theme}.png"))
                if (reached := tab.evaluate("document.documentElement.scrollWidth")) > width:
                    counts.too_wide.append(f"{reached} of {width}")
                counts.messages += tab.problems
                counts.requests += tab.requests
    return counts


def _try_controls(tab: Tab) -> None:
    """Use every axis and every heading that sorts, and open all folds, so that their messages are seen too."""
    tab.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    for _ in range(3):  # up, down, and back
        tab.evaluate("document.querySelectorAll('.sort').forEach(button => button.click())")
    tab.evaluate("document.querySelectorAll('.axis-choice input').forEach(input => input.click())")
    tab.evaluate("document.querySelector('.axis-choice input')?.click()")
    tab.evaluate("document.querySelectorAll('main details').forEach(fold => fold.open = false)")


def main(words: list[str]) -> int:
    """Make the pages, look at them, and print the table.

    Raises:
        CramError: Chromium is not installed.
    """
    config = read_words(ReportProofConfig, words)
    program = find_chromium()
    if program is None:
        raise CramError("Chromium is not installed: apt-get install chromium")
    folder = Path(config.to)
    folder.mkdir(parents=True, exist_ok=True)
    print("| page | kB | s | console | requests | wider than its window |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as place, Browser(program) as browser:
        subjects = make_subjects(Workspace(Path(place)), config.lines) if config.own else iter(())
        given = ((f"page-{number}", shlex.split(page)) for number, page in enumerate(config.pages, 1))
        for name, subject in chain(subjects, given):
            page = folder / f"{name}.html"
            counts = look_at(browser, page, write_page(subject, page))
            found.append(counts)
            print(
                f"| {name} | {counts.kilobytes:.0f} | {counts.seconds:.2f} | {len(counts.messages)} | "
                f"{len(counts.requests)} | {len(counts.too_wide)} |",
                flush=True,
            )
            for problem in (*counts.messages, *counts.requests, *counts.too_wide):
                print(f"{name}: {problem}", flush=True)
    slow = [counts for counts in found if counts.name == "long" and counts.seconds > config.seconds]
    return 0 if all(counts.passed for counts in found) and not slow else 1


if __name__ == "__main__":
    run_door(main, ReportProofConfig, ABOUT)
