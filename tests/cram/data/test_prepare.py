import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from cram.config import DataConfig, WordPieceConfig
from cram.data import prepare, shards
from cram.data.prepare import prepare_shards
from cram.data.shards import ShardSet
from cram.errors import CramError

ROOT = str(Path(__file__).parents[3])
CORPUS = Path(ROOT).parent / "shared/data/pretrain"
WORDPIECE = WordPieceConfig(vocab_size=128)
SYLLABLES = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal"]


class Quiet:
    """A progress report that counts."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        self.stages[name] = 0

        def advance(amount: int) -> None:
            assert amount >= 0
            self.stages[name] += amount

        yield SimpleNamespace(advance=advance)


def texts(count: int = 300) -> list[str]:
    random = np.random.RandomState(7)
    return [" ".join("".join(random.choice(SYLLABLES, 3)) for _ in range(random.randint(3, 60))) for _ in range(count)]


def write(folder: Path, documents: list[str], files: int = 3) -> DataConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[number::files])
        (folder / f"{number}.jsonl").write_text(lines)
    return DataConfig(source=f"{folder}/*.jsonl", dir=str(folder / "shards"), seq_len=32, held_out=0.05)


def make(data: DataConfig, wordpiece: WordPieceConfig = WORDPIECE, tokenizer: str | None = None) -> ShardSet:
    return prepare_shards(data, wordpiece, tokenizer, Quiet())  # type: ignore[arg-type]


def test_every_training_document_is_packed_and_no_held_out_one(tmp_path: Path) -> None:
    documents = texts()
    made = make(write(tmp_path, [*documents, "", " \n", documents[0]]))
    tokenizer = Tokenizer.from_file(str(made.tokenizer_path))
    tokens, borders = made.read(np.arange(made.rows))
    stream = tokens.ravel()[: made.tokens]
    packed = [tokenizer.decode(piece.tolist()) for piece in np.split(stream, np.flatnonzero(stream == 2)[1:])]
    held_out = [document.text for document in made.held_out()]
    assert sorted(packed + held_out) == sorted([*documents, documents[0]])
    assert 0 < len(held_out) < 50
    assert made.manifest["counts"] == {
        "documents": len(packed),
        "held_out_documents": len(held_out),
        "empty_documents": 2,
        "bytes": sum(map(len, packed)),
    }
    assert made.tokens == (tokens != 0).sum() and (made.token_counts()[1:] > 0).sum() > 64
    assert made.manifest["tokenizer"]["trained_here"]
    assert [source["name"] for source in made.manifest["sources"]] == ["0.jsonl", "1.jsonl", "2.jsonl"]
    assert borders.max() > 0
    made.verify()


def test_prepared_twice_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path, texts())
    made = make(data)
    monkeypatch.setattr(prepare, "_prepare", None)
    assert make(data).folder == made.folder
    assert make(replace(data, epochs=5)).folder == made.folder


def test_another_setting_or_content_is_another_folder(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    made = [
        make(data),
        make(replace(data, seq_len=16)),
        make(replace(data, held_out=0.1)),
        make(replace(data, tokens=999)),
    ]
    made.append(make(data, replace(WORDPIECE, vocab_size=192)))
    made.append(make(data, tokenizer=str(made[0].tokenizer_path)))
    assert not made[-1].manifest["tokenizer"]["trained_here"]
    (tmp_path / "0.jsonl").write_text((tmp_path / "0.jsonl").read_text().replace("ba", "bo"))
    made.append(make(data))
    assert len({shard_set.folder for shard_set in made}) == len(made)
    assert made[0].hash == made[5].hash, "the same tokenizer, given by path"


def test_two_preparations_elsewhere_give_the_same_hash(tmp_path: Path) -> None:
    first, second = (make(write(tmp_path / name / "corpus", texts())) for name in ("here", "there"))
    assert first.hash == second.hash and first.folder.name == second.folder.name


def test_tokens_stops_there_with_every_file_in_it(tmp_path: Path) -> None:
    data = write(tmp_path, texts(3000))
    whole = make(data)
    limited = make(replace(data, tokens=20_000))
    assert whole.tokens > 60_000
    assert 20_000 <= limited.tokens < 20_000 + 400
    tokenizer = Tokenizer.from_file(str(limited.tokenizer_path))
    tokens, _ = limited.read(np.arange(limited.rows))
    text = " ".join(tokenizer.decode(tokens.ravel().tolist()).split())
    for number in range(3):
        lines = (tmp_path / f"{number}.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["text"] in text for line in lines) > 60


def test_a_mask_in_the_text_is_text(tmp_path: Path) -> None:
    made = make(write(tmp_path, [*texts(), *(f"{text} [MASK] [SEP]" for text in texts(50))]))
    counts = made.token_counts()
    assert counts[4] == 0 and counts[3] == made.documents


def test_two_documents_are_enough_and_one_is_not(tmp_path: Path) -> None:
    one, two = texts(2)
    small = WordPieceConfig(vocab_size=64)
    made = make(replace(write(tmp_path / "two", [one * 40, two * 40]), held_out=0.001), small)
    assert made.documents == len(made.held_out()) == 1
    with pytest.raises(CramError, match=r"nothing is left to train on, its 1 document\(s\) are held out\n.*blank_line"):
        make(write(tmp_path / "one", [one * 40]))


@pytest.mark.parametrize("content", ["", '{"text": " "}\n'])
def test_an_empty_corpus(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    data = DataConfig(source=f"{tmp_path}/a.jsonl", dir=str(tmp_path / "shards"))
    with pytest.raises(CramError, match=r"data.source='.*a.jsonl': the files hold no text"):
        make(data)
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("held_out", 1.0), ("held_out", -0.1), ("seq_len", 1), ("tokens", 0)])
def test_settings_out_of_range_name_their_key(tmp_path: Path, name: str, value: Any) -> None:
    data = replace(write(tmp_path, texts(9)), **{name: value})
    with pytest.raises(CramError, match=f"data.{name}={value}"):
        make(data)


@pytest.mark.parametrize("error", [CramError("bad line"), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_what_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    data = write(tmp_path, texts())
    monkeypatch.setattr(shards, "write_json", fail)
    with pytest.raises(CramError if isinstance(error, OSError) else type(error)):
        make(data)
    assert list(Path(data.dir).iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = write(tmp_path, texts())
    monkeypatch.setattr("cram.record.os.fsync", full)
    with pytest.raises(CramError, match=r"/shards.*the disk is full \(No space left on device\)"):
        make(data)
    assert list(Path(data.dir).iterdir()) == []


def test_a_data_dir_that_cannot_be_written(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    (tmp_path / "file").write_text("")
    with pytest.raises(CramError, match=r"data.dir='.*file': cannot be written"):
        make(replace(data, dir=str(tmp_path / "file")))


def test_another_process_that_was_faster_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path, texts())
    real = prepare._prepare
    raced: list[Path] = []

    def race(*arguments: Any) -> None:
        real(*arguments)
        if prepare.os.getpid() != 1:
            monkeypatch.setattr(prepare.os, "getpid", lambda: 1)
            raced.append(make(data).folder)

    monkeypatch.setattr(prepare, "_prepare", race)
    assert make(data).folder == raced[0]
    assert list(Path(data.dir).iterdir()) == raced


def test_broken_sources_pass_their_message_on(tmp_path: Path) -> None:
    data = write(tmp_path, texts())
    (tmp_path / "1.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
    with pytest.raises(CramError, match=r"1.jsonl:2: field 'text' must be a string, found int; set data.text_field"):
        make(data)


MEASURE = """
import resource, sys
from cram.config import DataConfig, WordPieceConfig
from cram.console import Progress
from cram.data.prepare import prepare_shards
data = DataConfig(source=sys.argv[1], dir=sys.argv[2], tokens=1_000_000)
prepare_shards(data, WordPieceConfig(vocab_size=8192, sample_bytes=4_000_000), None, Progress())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "torch" in sys.modules)
"""


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus in {CORPUS}")
def test_real_text_from_every_file_in_bounded_memory(tmp_path: Path) -> None:
    words = [sys.executable, "-c", MEASURE, f"{CORPUS}/*.jsonl.zst", str(tmp_path)]
    output = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    kilobytes, torch_imported = output.stdout.split()[-2:]
    assert int(kilobytes) < 1_000_000
    assert torch_imported == "False"
    (folder,) = tmp_path.iterdir()
    made = ShardSet.open(folder)
    assert 1_000_000 <= made.tokens < 1_020_000
    assert len(made.manifest["sources"]) == 15
