"""Passes over the rows of a shard folder, timed in turns: what `bench.loader` measures."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models

from bench.timing import describe_machine, percentiles, time_alternating, write_results
from cram.config.objective import ObjectiveConfig
from cram.data.shards.loader import Loader
from cram.data.shards.order import OrderKind, open_order
from cram.data.shards.pack import make_packer
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.data.wordpiece import SPECIAL_TOKENS
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting

VOCAB = 32_768
SEQ_LENS = (128, 512)
ORDERS: tuple[OrderKind, ...] = ("shuffled", "likely_first")
MICRO_TOKENS = 1 << 15
ROWS_PER_SHARD = 32_768
MEDIAN_LENGTH = 240  # of a document, in tokens; the lengths are log-normal


def make_shards(folder: Path, seq_len: int, tokens: int) -> None:
    """Write a shard folder of random documents, about `tokens` tokens, with the word frequencies of Zipf's law."""
    folder.mkdir()
    random = np.random.default_rng(0)
    writer = ShardWriter(folder, seq_len, VOCAB, 0)
    packer = make_packer("greedy", seq_len, 0)
    documents = total = 0
    while total < tokens:
        lengths = np.minimum(random.lognormal(np.log(MEDIAN_LENGTH), 1.0, 1000).astype(np.int64) + 3, 20_000)
        words = random.random(int(lengths.sum()))
        ids = (len(SPECIAL_TOKENS) * (VOCAB / len(SPECIAL_TOKENS)) ** words).astype(np.int32)
        ids[np.cumsum(lengths) - lengths], ids[np.cumsum(lengths) - 1] = 2, 3
        for document in np.split(ids, np.cumsum(lengths)[:-1]):
            packer.add(document)
        documents, total = documents + len(lengths), total + len(ids)
        writer.write(*packer.take())
        if writer.buffered >= ROWS_PER_SHARD:
            writer.flush()
    writer.write(*packer.finish())
    pieces = [*SPECIAL_TOKENS, *map(str, range(VOCAB - len(SPECIAL_TOKENS)))]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    writer.finish(tokenizer.to_str().encode(), [], {"counts": {"documents": documents}})


class LoaderPasses:
    """The contenders: passes over the rows of one folder in one order. Each method is one pass."""

    def __init__(self, folder: Path, order: OrderKind) -> None:
        self._folder, self._order = folder, order
        shards = ShardSet.open(folder)
        special = SpecialTokens.of(load_tokenizer(shards.tokenizer_path))
        setting = Setting(
            special.ids(), special.pad, special.mask, shards.vocab_size, shards.seq_len, static_shapes=True
        )
        self._objective = MaskedObjective(ObjectiveConfig(), setting)
        self._micro_rows = max(1, min(MICRO_TOKENS // shards.seq_len, shards.rows))
        self.batches = shards.rows // self._micro_rows
        self.tokens = self.batches * self._micro_rows * shards.seq_len
        loader = Loader(shards, 0, order=order)
        self._rows = loader.next(self._micro_rows)
        loader.close()

    def read(self) -> None:
        """Read all rows, without masks."""
        for _ in self._read():
            pass

    def mask(self) -> None:
        """Choose masks for one micro-batch that lies in memory, as often as the folder has micro-batches."""
        for batch in range(self.batches):
            self._objective.prepare(self._rows, batch / self.batches)

    def read_and_mask(self) -> None:
        """Read all rows and choose their masks."""
        for batch, rows in enumerate(self._read()):
            self._objective.prepare(rows, batch / self.batches)

    def cold(self) -> None:
        """Do the same, with the shards' pages dropped from memory before."""
        drop_pages(self._folder.glob("shard-*"))
        self.read_and_mask()

    def contenders(self) -> dict[str, Callable[[], object]]:
        """Return the passes by name, without `cold` where the system cannot be asked to drop pages."""
        cold = [self.cold] if hasattr(os, "posix_fadvise") else []
        passes = (self.read, self.mask, self.read_and_mask, *cold)
        return {run_pass.__name__: run_pass for run_pass in passes}

    def _read(self) -> Iterable[Any]:
        loader = Loader(ShardSet.open(self._folder), 0, order=self._order)
        for _ in range(self.batches):
            yield loader.next(self._micro_rows)
        loader.close()


def drop_pages(paths: Iterable[Path]) -> None:
    """Ask the system to drop its copies of files from memory. It drops those of files that nobody has open."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_case(folder: Path, order: OrderKind, rounds: int) -> dict[str, Any]:
    """Time the passes over a folder in one order, and return the tokens a second of each."""
    shards = ShardSet.open(folder)
    open_order(shards, order, 0, 0)  # made before the timing, as preparation makes it
    case = {"rows": shards.rows, "seq_len": shards.seq_len, "shards": len(shards.manifest["shards"])}
    del shards  # its memory maps would keep the pages
    passes = LoaderPasses(folder, order)
    seconds = time_alternating(passes.contenders(), rounds, torch.device("cpu"), warmup=1)
    speeds = {name: percentiles([passes.tokens / value for value in values]) for name, values in seconds.items()}
    return case | {"micro_batch": MICRO_TOKENS, "tokens": passes.tokens, "tokens_per_second": speeds}


def print_case(label: str, case: dict[str, Any]) -> None:
    """Print one case: median (20th-80th percentile) million tokens a second."""
    speeds = "  ".join(
        f"{name} {s['median'] / 1e6:.1f} ({s['p20'] / 1e6:.1f}-{s['p80'] / 1e6:.1f})"
        for name, s in case["tokens_per_second"].items()
    )
    print(f"{label}: M tokens/s  {speeds}", flush=True)


def run_cases(data: str, tokens: int, rounds: int, out: Path) -> Path:
    """Run all cases and write `OUT/loader-cpu.json`.

    Args:
        data: a shard folder, or `make` for folders of random documents.
        tokens: number of tokens in each folder that is made.
        rounds: how often each contender is timed.
        out: folder of the results.
    """
    torch.set_num_threads(1)
    cases = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {Path(data).name: Path(data)}
        if data == "make":
            folders = {f"greedy {seq_len}": Path(temporary) / str(seq_len) for seq_len in SEQ_LENS}
            for seq_len, folder in zip(SEQ_LENS, folders.values(), strict=True):
                make_shards(folder, seq_len, tokens)
        for label, folder in folders.items():
            for order in ORDERS:
                name = f"{label} {order}"
                cases[name] = run_case(folder, order, rounds)
                print_case(name, cases[name])
    machine = describe_machine(torch.device("cpu"), ("torch", "numpy"))
    machine["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return write_results({"machine": machine, "cases": cases}, out, "loader-cpu")
