"""`python -m proofs.epochs`: check over a shard folder that an epoch gives each row once."""

import random
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.shards.loader import Loader
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError

ABOUT = """Check over a shard folder that an epoch gives each row once, and each token as often as it was counted.

    python -m proofs.epochs data=SHARDFOLDER order=shuffled batch=1000

Three ways: one loader; a loader that stops at a random row and a new one that resumes; and a second epoch after that.
Exit status 1 if a row or a token is given too often or too seldom, or in another order after resuming."""


@dataclass
class EpochsConfig:
    """The keys of this proof."""

    data: str = key("", "shard folder", path=True)
    order: Literal["shuffled", "likely_first", "unlikely_first"] = key("shuffled", "order of the rows, as in a recipe")
    batch: int = key(1000, "rows drawn at a time", "rows", least=1)
    seed: int = key(0, "of the order and of the row at which the loader stops", least=0)


class Counter:
    """Counts what loaders give: the rows in their order, and how often each token id occurs."""

    def __init__(self, vocab_size: int) -> None:
        self.tokens = np.zeros(vocab_size, np.int64)
        self.rows: list[np.ndarray] = []

    def draw(self, loader: Loader, rows: int, batch: int) -> None:
        """Draw rows from a loader, in batches."""
        while rows:
            drawn = loader.next(min(batch, rows))
            rows -= len(drawn.index)
            self.rows.append(drawn.index)
            self.tokens += np.bincount(drawn.tokens.ravel(), minlength=len(self.tokens))

    def find_problem(self, shards: ShardSet, epochs: int) -> str | None:
        """Return what is wrong after so many epochs, None if nothing is."""
        tokens = self.tokens.copy()
        tokens[SpecialTokens.of(load_tokenizer(shards.tokenizer_path)).pad] = 0  # padding is not counted in shards
        times = np.bincount(np.concatenate(self.rows), minlength=shards.rows)
        if (times != epochs).any():
            return f"{(times != epochs).sum()} rows were not given {epochs} time(s)"
        if not np.array_equal(tokens, epochs * shards.token_counts()):
            return "the tokens are not those that were counted when the shards were made"
        return None


def prove(shards: ShardSet, config: EpochsConfig, stop: int) -> list[str]:
    """Draw epochs in three ways, once with a stop at row `stop`. Returns the problems."""
    straight, resumed = Counter(shards.vocab_size), Counter(shards.vocab_size)
    loader = Loader(shards, config.seed, 1, config.order)
    straight.draw(loader, shards.rows, config.batch)
    loader.close()
    loader = Loader(shards, config.seed, 2, config.order)
    resumed.draw(loader, stop, config.batch)
    state = loader.state()
    loader.close()
    loader = Loader(shards, config.seed, 2, config.order)
    loader.resume(state)
    resumed.draw(loader, shards.rows - stop, config.batch)
    problems = [straight.find_problem(shards, 1), resumed.find_problem(shards, 1)]
    if not np.array_equal(np.concatenate(straight.rows), np.concatenate(resumed.rows)):
        problems.append("the resumed epoch has another order than the straight one")
    resumed.draw(loader, shards.rows, config.batch)
    loader.close()
    problems.append(resumed.find_problem(shards, 2))
    return [problem for problem in problems if problem]


def main(words: list[str]) -> int:
    """Check the epochs of a shard folder and print the outcome.

    Raises:
        CramError: no shard folder is given.
    """
    config = read_words(EpochsConfig, words)
    if not config.data:
        raise CramError("data= is missing. Give a shard folder.")
    shards, start = ShardSet.open(config.data), time.perf_counter()
    stop = random.Random(config.seed).randrange(1, shards.rows)
    problems = prove(shards, config, stop)
    print(
        f"{shards.folder}, {config.order}: {shards.rows:,} rows, {shards.tokens:,} tokens, straight, resumed at row "
        f"{stop:,}, and a second epoch: {'; '.join(problems) or 'each row once an epoch, each token as counted'} "
        f"({time.perf_counter() - start:.1f} s)"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    run_door(main, EpochsConfig, ABOUT)
