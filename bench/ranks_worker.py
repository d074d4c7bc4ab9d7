"""A rank of `bench.ranks`: trains, and writes down what it has exchanged and how much state its optimizer holds."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from cram.build import build_optimizer
from cram.command import run_door
from cram.config.config import Config
from cram.config.recipe import read_config
from cram.distributed.launch import read_launch
from cram.distributed.ranks import Pending, Ranks
from cram.files.atomic import write_json

ABOUT = """Train on a rank of bench.ranks, without what follows the training. The first word is a folder for figures."""
Exchange = Callable[[Ranks, Tensor], list[Pending]]


class Figures:
    """Counts exchanges and bytes of a rank, and keeps its optimizer."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.optimizers: list[Any] = []

    def counting(self, name: str, exchange: Exchange) -> Exchange:
        """Count the bytes of the tensors that an exchange is given."""

        def call(ranks: Ranks, flat: Tensor) -> list[Pending]:
            self.counts[f"{name}_bytes"] += flat.nbytes
            self.counts[name] += 1
            return exchange(ranks, flat)

        return call

    def build(self, *arguments: Any, **named: Any) -> Any:
        """Make the optimizer and keep it."""
        optimizer = build_optimizer(*arguments, **named)
        self.optimizers.append(optimizer)
        return optimizer

    def optimizer_bytes(self) -> int:
        """Bytes of the tensors that the update rule of this rank holds."""
        rule = getattr(self.optimizers[0], "rule", self.optimizers[0])
        return sum(tensor.nbytes for tensor in rule.state_tensors().values())


def main(words: list[str]) -> int:
    """Train, and write the figures."""
    from cram.fitting import fit_config

    figures, launch, (folder, *words) = Figures(), read_launch(), words
    with (
        patch.object(Ranks, "reduce_scatter", figures.counting("reduce_scatter", Ranks.reduce_scatter)),
        patch.object(Ranks, "all_gather", figures.counting("all_gather", Ranks.all_gather)),
        patch("cram.build.build_optimizer", figures.build),
        patch("cram.fitting.finish_run", lambda *_: {}),
        patch("cram.fitting.summarize", lambda receipt: receipt),
        patch("cram.training.run_page.RunPage.write_last", lambda page: None),
    ):
        fit_config(read_config(words))
    path = Path(folder) / f"rank-{launch.rank}.json"
    write_json(path, {"optimizer_bytes": figures.optimizer_bytes(), **figures.counts})
    return 0


if __name__ == "__main__":
    run_door(main, Config, ABOUT, on_ranks=True)
