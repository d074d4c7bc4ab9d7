"""A small shard folder with documents of every kind, and helpers that print it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.data.cleaning.held_out_split import hash_text
from cram.data.inspect.show import print_shards
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.terminal.progress import Progress

PAD, CLS, SEP = 0, 2, 3
SYLLABLES = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal"]


NOTICE = "Please enable javascript to use this site."


SHORT = "a [bold]short[/bold] \x1b[31mone\x1b[0m\r\nwith :smile: \u202e\u2028 na\u00efve \u65e5"


def text(random: np.random.RandomState, words: int) -> str:
    return " ".join("".join(random.choice(SYLLABLES, 3)) for _ in range(words))


def prepared(folder: Path, **settings: Any) -> ShardSet:
    """Prepare 200 documents, 8 of them with a notice, and 7 short ones, 5 exact and 4 near duplicates."""
    random = np.random.RandomState(5)
    documents = [text(random, random.randint(12, 60)) for _ in range(196)]
    documents += [text(random, 150) for _ in range(4)]
    for place in range(10, 18):
        documents[place] = f"{documents[place]}\n{NOTICE}"
    twins = [f"{document} end" for document in documents[196:]]
    short = [one for one in (f"{SHORT} {n}" for n in range(30)) if hash_text(one) >= 0.05 * 2**64][:7]
    everything = [*documents, *short, *documents[20:25], *twins]
    folder.mkdir()
    source = folder / "corpus.jsonl"
    source.write_text("".join(json.dumps({"text": one}) + "\n" for one in everything))
    filters = FilterConfig(min_words=12, symbols=None, digits=None, repetition=False, compressibility=None)
    data = DataConfig(
        source=str(source),
        dir=str(folder),
        seq_len=32,
        held_out=0.05,
        filters=filters,
        dedupe=DedupeConfig(exact=True, near=0.8),
        processes=1,
        **settings,
    )
    return prepare_shards(data, TokenizerSource(wordpiece=WordPieceConfig(vocab_size=128)), Progress(terminal=False))


def plain(patch: pytest.MonkeyPatch) -> None:
    """Make the output 80 columns wide and not a terminal."""
    patch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        patch.delenv(name, raising=False)


def print_folder(shards: ShardSet, capsys: pytest.CaptureFixture[str], row: int | None = None) -> str:
    capsys.readouterr()
    print_shards(shards.folder, row)
    return capsys.readouterr().out
