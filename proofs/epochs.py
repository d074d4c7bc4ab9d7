"""Prove over a shard set that an epoch gives each row once and each token as often as it was counted.

    python -m proofs.epochs data=SHARDFOLDER [order=shuffled] [seed=0] [batch=1000]

Three ways: straight; stopped at a row drawn by the seed and resumed by a new loader; and a second epoch behind it.
"""

import random
import sys
import time

import numpy as np

from cram.data.shards.loader import Loader
from cram.data.shards.shards import ShardSet
from cram.data.tokenizer import SpecialTokens, load_tokenizer


class Seen:
    """What a loader has given: how often each row, in which order, and how often each token."""

    def __init__(self, shards: ShardSet):
        self.tokens = np.zeros(shards.vocab_size, np.int64)
        self.order: list[np.ndarray] = []

    def take(self, loader: Loader, rows: int, batch: int) -> None:
        """Draw rows, in batches."""
        while rows:
            part = loader.next(min(batch, rows))
            rows -= len(part.index)
            self.order.append(part.index)
            self.tokens += np.bincount(part.tokens.ravel(), minlength=len(self.tokens))

    def problem(self, shards: ShardSet, epochs: int) -> str | None:
        """What is not as it must be after so many epochs."""
        pad = SpecialTokens.of(load_tokenizer(shards.tokenizer_path)).pad
        self.tokens[pad] = 0
        times = np.bincount(np.concatenate(self.order), minlength=shards.rows)
        if (times != epochs).any():
            return f"{(times != epochs).sum()} rows not seen {epochs} time(s)"
        if not np.array_equal(self.tokens, epochs * shards.token_counts()):
            return "tokens differ from those that were counted when the shards were made"
        return None


def main(words: list[str]) -> int:
    options = {"order": "shuffled", "seed": "0", "batch": "1000"} | dict(word.split("=", 1) for word in words)
    shards, seed, batch = ShardSet.open(options["data"]), int(options["seed"]), int(options["batch"])
    began = time.perf_counter()
    straight, resumed, twice = Seen(shards), Seen(shards), Seen(shards)
    loader = Loader(shards, seed, 1, options["order"])  # type: ignore[arg-type]
    straight.take(loader, shards.rows, batch)
    loader.close()
    stop = random.Random(seed).randrange(1, shards.rows)
    loader = Loader(shards, seed, 2, options["order"])  # type: ignore[arg-type]
    resumed.take(loader, stop, batch)
    state = loader.state()
    loader.close()
    loader = Loader(shards, seed, 2, options["order"])  # type: ignore[arg-type]
    loader.resume(state)
    resumed.take(loader, shards.rows - stop, batch)
    twice.order, twice.tokens = list(resumed.order), resumed.tokens.copy()
    twice.take(loader, shards.rows, batch)
    loader.close()
    problems = [straight.problem(shards, 1), resumed.problem(shards, 1), twice.problem(shards, 2)]
    if not np.array_equal(np.concatenate(straight.order), np.concatenate(resumed.order)):
        problems.append("the resumed epoch has another order than the straight one")
    found = [problem for problem in problems if problem]
    print(
        f"{shards.folder}, {options['order']}: {shards.rows:,} rows, {shards.tokens:,} tokens, straight, resumed at "
        f"row {stop:,}, and a second epoch: {'; '.join(found) or 'each row once an epoch, each token as counted'} "
        f"({time.perf_counter() - began:.1f} s)"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
