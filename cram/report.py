"""`python -m cram.report run=DIR`: one page that shows runs, tables of arms, data, GLUE results or plans."""

import gc
import time

from cram.command import run_door
from cram.config.commands import ReportConfig
from cram.config.recipe import read_words

ABOUT = """Write one HTML page that shows runs, a table of arms, shards, GLUE results or a plan.

    python -m cram.report run=runs/bert_demo
    python -m cram.report run=runs/one run=runs/other to=both.html
    python -m cram.report table=runs/ablations/recipe-600s
    python -m cram.report data=shards/pydocs
    python -m cram.report glue=runs/bert_demo plan=mine.yaml to=mine.html

Give run= once for each run; several runs are compared. A run may be unfinished. The page needs no network and no other
file, so it can be sent to anybody."""


def main(words: list[str]) -> int:
    """Write the page that the words ask for, and print its path, its size and how long it took."""
    began = time.monotonic()
    config = read_words(ReportConfig, words)
    runs = [read_words(ReportConfig, [word]).run for word in words if word.startswith("run=")]
    from cram.reporting.make import Subjects, write_report

    path = write_report(Subjects.of(config, [run for run in runs if run is not None]), config.to)
    print(f"{path}: {path.stat().st_size / 1000:,.0f} kB in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    gc.disable()  # searching the records of a long run for cycles takes a fifth of the time, and the process is short
    run_door(main, ReportConfig, ABOUT, repeated=("run",))
