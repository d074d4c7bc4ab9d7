"""A small corpus of invented words, and helpers that prepare it and look at the result."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cram.config.data import DataConfig, FilterConfig, WordPieceConfig
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet

ROOT = str(Path(__file__).parents[4])
WORDPIECE = WordPieceConfig(vocab_size=128)
NO_FILTERS = FilterConfig(
    min_words=0, symbols=None, digits=None, repetition=False, boilerplate=False, compressibility=None
)
SYLLABLES = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal"]


class Quiet:
    """A progress report that counts."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}
        self.totals: dict[str, int | None] = {}

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        self.stages[name] = 0
        self.totals[name] = total

        def advance(amount: int) -> None:
            assert amount >= 0
            self.stages[name] += amount

        yield SimpleNamespace(advance=advance)


def texts(count: int = 300, seed: int = 7) -> list[str]:
    random = np.random.RandomState(seed)
    return [" ".join("".join(random.choice(SYLLABLES, 3)) for _ in range(random.randint(3, 60))) for _ in range(count)]


def write(folder: Path, documents: list[str], files: int = 3) -> DataConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[number::files])
        (folder / f"{number}.jsonl").write_text(lines)
    return DataConfig(
        source=f"{folder}/*.jsonl",
        dir=str(folder / "shards"),
        seq_len=32,
        held_out=0.05,
        filters=NO_FILTERS,
        processes=1,
    )


def make(data: DataConfig, wordpiece: WordPieceConfig = WORDPIECE, tokenizer: str | None = None) -> ShardSet:
    return prepare_shards(data, TokenizerSource(tokenizer, wordpiece), Quiet())  # type: ignore[arg-type]


def packed(shards: ShardSet) -> list[str]:
    """The documents in the rows."""
    tokenizer = Tokenizer.from_file(str(shards.tokenizer_path))
    stream = shards.read(np.arange(shards.rows))[0].ravel()
    stream = stream[stream != 0]
    return [tokenizer.decode(piece.tolist()) for piece in np.split(stream, np.flatnonzero(stream == 2)[1:])]


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of the files below a folder that must not differ from run to run."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "timing.json"
    }


def seen(folder: Path) -> list[str]:
    """The names of the visible entries of a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def run(script: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ROOT}
    )


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail
