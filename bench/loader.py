"""`python -m bench.loader`: tokens a second that reach training on one core.

Nothing here imports torch before the process is bound to its core.
"""

import os
from dataclasses import dataclass

from bench.options import OUT_HELP, results_folder
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError

ABOUT = """Time the rows that reach training, in training order and with masks, in tokens a second of one core.

    python -m bench.loader data=make
    python -m bench.loader data=shards/SHARDFOLDER rounds=9

`data=make` packs random documents greedily into rows of 128 and of 512, in a temporary folder. A measurement is one
pass over all rows, from opening the shards to the last micro-batch. These passes take turns: `read` is the loader
alone, `mask` the objective alone, on rows in memory, `read_and_mask` both, and `cold` both, with the shards' pages
dropped from memory before, so that every row comes from the disk. All threads share the one core."""


@dataclass
class LoaderBenchConfig:
    """What `bench.loader` takes."""

    data: str = key("", "shard folder, or `make` for folders of random documents", path=True)
    tokens: int = key(50_000_000, "with data=make: size of each folder", "tokens", least=1, most=10**12)
    rounds: int = key(7, "times that each pass is timed", "passes", least=2, most=1000)
    out: str | None = key(None, OUT_HELP, path=True)


def bind_to_one_core() -> None:
    """Bind the process to its last core. Threads inherit this, so it must happen before torch starts any."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(words: list[str]) -> None:
    """Run all cases and print where the results are.

    Raises:
        CramError: no shard folder is given.
    """
    config = read_words(LoaderBenchConfig, words)
    if not config.data:
        raise CramError("data= is missing. Give a shard folder, or data=make.")
    from bench.loader_passes import run_cases

    print(run_cases(config.data, config.tokens, config.rounds, results_folder(config.out)))


if __name__ == "__main__":
    bind_to_one_core()
    run_door(main, LoaderBenchConfig, ABOUT)
