"""Tokens a second that reach training on one core: rows in training order, their masks chosen, ready for the model.

    python -m bench.loader data=SHARDFOLDER|make [tokens=50e6] [rounds=7] [out=bench/results]

`make` packs random documents, greedily, into rows of 128 and of 512, in a temporary folder. A measurement is one pass
over all rows, from opening the shards to the last micro-batch; the parts of it take turns:
`read` is the loader, `mask` the objective on rows that lie there, `read_and_mask` both, and `cold` both with the
shards' pages dropped from memory before, so that every row comes from the disk. The threads share the one core.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__" and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before torch starts threads

import numpy as np
import torch
from tokenizers import Tokenizer, models

from bench.timing import machine, spread, time_alternating, write_results
from cram.config.training import ObjectiveConfig
from cram.data.shards.loader import Loader
from cram.data.shards.order import OrderKind, open_order
from cram.data.shards.pack import make_packer
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.tokenizer import SPECIAL_TOKENS, SpecialTokens, load_tokenizer
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting

ROOT = Path(__file__).resolve().parent.parent

VOCAB = 32_768
SEQ_LENS = (128, 512)
ORDERS: tuple[OrderKind, ...] = ("shuffled", "likely_first")
MICRO_TOKENS = 1 << 15
ROWS_PER_SHARD = 32_768
MEDIAN_LENGTH = 240  # of a document, in tokens; the lengths are log-normal


def make_shards(folder: Path, seq_len: int, tokens: int) -> None:
    """A shard folder of random documents, about `tokens` tokens; the words are as frequent as Zipf's law has it."""
    folder.mkdir()
    random = np.random.default_rng(0)
    writer = ShardWriter(folder, seq_len, VOCAB, 0)
    packer = make_packer("greedy", seq_len, 0)
    documents = done = 0
    while done < tokens:
        lengths = np.minimum(random.lognormal(np.log(MEDIAN_LENGTH), 1.0, 1000).astype(np.int64) + 3, 20_000)
        words = random.random(int(lengths.sum()))
        ids = (len(SPECIAL_TOKENS) * (VOCAB / len(SPECIAL_TOKENS)) ** words).astype(np.int32)
        ids[np.cumsum(lengths) - lengths], ids[np.cumsum(lengths) - 1] = 2, 3
        for document in np.split(ids, np.cumsum(lengths)[:-1]):
            packer.add(document)
        documents, done = documents + len(lengths), done + len(ids)
        writer.write(*packer.take())
        if writer.buffered >= ROWS_PER_SHARD:
            writer.flush()
    writer.write(*packer.finish())
    pieces = [*SPECIAL_TOKENS, *map(str, range(VOCAB - len(SPECIAL_TOKENS)))]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    writer.finish(tokenizer.to_str().encode(), [], {"counts": {"documents": documents}})


class Passes:
    """The contenders: passes over the rows of one folder in one order."""

    def __init__(self, folder: Path, order: OrderKind) -> None:
        self._folder, self._order = folder, order
        shards = ShardSet.open(folder)
        special = SpecialTokens.of(load_tokenizer(shards.tokenizer_path))
        setting = Setting(
            special.ids(), special.pad, special.mask, shards.vocab_size, shards.seq_len, static_shapes=True
        )
        self._objective = MaskedObjective(ObjectiveConfig(), setting)
        self._n = max(1, min(MICRO_TOKENS // shards.seq_len, shards.rows))
        self.batches = shards.rows // self._n
        self.tokens = self.batches * self._n * shards.seq_len
        loader = Loader(shards, 0, order=order)
        self._rows = loader.next(self._n)
        loader.close()

    def read(self) -> None:
        for _ in self._read():
            pass

    def mask(self) -> None:
        for batch in range(self.batches):
            self._objective.prepare(self._rows, batch / self.batches)

    def read_and_mask(self) -> None:
        for batch, rows in enumerate(self._read()):
            self._objective.prepare(rows, batch / self.batches)

    def cold(self) -> None:
        drop_pages(self._folder.glob("shard-*"))
        self.read_and_mask()

    def contenders(self) -> dict[str, Callable[[], object]]:
        """The measurements by name; no `cold` where the system cannot be asked to forget."""
        cold = [self.cold] if hasattr(os, "posix_fadvise") else []
        return {one.__name__: one for one in (self.read, self.mask, self.read_and_mask, *cold)}

    def _read(self) -> Iterable[Any]:
        loader = Loader(ShardSet.open(self._folder), 0, order=self._order)
        for _ in range(self.batches):
            yield loader.next(self._n)
        loader.close()


def drop_pages(paths: Iterable[Path]) -> None:
    """Ask the system to forget what it keeps in memory of files that nobody has open."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_case(folder: Path, order: OrderKind, rounds: int) -> dict[str, Any]:
    """Tokens a second of each contender."""
    shards = ShardSet.open(folder)
    open_order(shards, order, 0, 0)  # made before, as preparation does
    case = {"rows": shards.rows, "seq_len": shards.seq_len, "shards": len(shards.manifest["shards"])}
    del shards  # its maps would keep the pages
    passes = Passes(folder, order)
    seconds = time_alternating(passes.contenders(), rounds, torch.device("cpu"), warmup=1)
    speeds = {name: spread([passes.tokens / value for value in values]) for name, values in seconds.items()}
    return case | {"micro_batch": MICRO_TOKENS, "tokens": passes.tokens, "tokens_per_second": speeds}


def show(name: str, case: dict[str, Any]) -> None:
    """Print one case: median (20th-80th percentile) million tokens a second."""
    speeds = "  ".join(
        f"{who} {s['median'] / 1e6:.1f} ({s['p20'] / 1e6:.1f}-{s['p80'] / 1e6:.1f})"
        for who, s in case["tokens_per_second"].items()
    )
    print(f"{name}: M tokens/s  {speeds}", flush=True)


def main(words: list[str]) -> None:
    """Run all cases and write `OUT/loader-cpu.json`."""
    torch.set_num_threads(1)
    asked = {"data": "", "tokens": "50e6", "rounds": "7", "out": str(ROOT / "bench" / "results")}
    for word in words:
        name, _, value = word.partition("=")
        if name not in asked:
            raise SystemExit(f"unknown word {word!r}; the words are {', '.join(f'{key}=' for key in asked)}")
        asked[name] = value
    if not asked["data"]:
        raise SystemExit("data= is missing: a shard folder, or make")
    cases = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {Path(asked["data"]).name: Path(asked["data"])}
        if asked["data"] == "make":
            folders = {f"greedy {seq_len}": Path(temporary) / str(seq_len) for seq_len in SEQ_LENS}
            for seq_len, folder in zip(SEQ_LENS, folders.values(), strict=True):
                make_shards(folder, seq_len, int(float(asked["tokens"])))
        for label, folder in folders.items():
            for order in ORDERS:
                cases[f"{label} {order}"] = run_case(folder, order, int(asked["rounds"]))
                show(f"{label} {order}", cases[f"{label} {order}"])
    about = machine(torch.device("cpu"), ("torch", "numpy"))
    about["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(write_results({"machine": about, "cases": cases}, Path(asked["out"]), "loader-cpu"))


if __name__ == "__main__":
    main(sys.argv[1:])
