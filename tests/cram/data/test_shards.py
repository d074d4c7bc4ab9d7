import json
from pathlib import Path

import numpy as np
import pytest

from cram.data import shards
from cram.data.shards import HeldOut, ShardSet, ShardWriter
from cram.errors import CramError

SEQ_LEN, PAD = 8, 0
HELD_OUT = [HeldOut("held\u2028out \x85 text", "00aa"), HeldOut("other", "00bb")]
COUNTS = {"counts": {"documents": 3}}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 10)


def write(folder: Path, rows: int = 25) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir()
    random = np.random.default_rng(rows)
    tokens = random.integers(0, 100, (rows, SEQ_LEN), dtype=np.int32)
    documents = np.sort(random.integers(0, 4, (rows, SEQ_LEN), dtype=np.int32))
    writer = ShardWriter(folder, SEQ_LEN, 100, PAD)
    for start in range(0, rows, 7):
        writer.write(tokens[start : start + 7], documents[start : start + 7])
    writer.finish(b"{}", HELD_OUT, COUNTS)
    return tokens, documents


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tokens, documents = write(tmp_path / "set")
    opened = ShardSet.open(tmp_path / "set")
    assert (opened.rows, opened.seq_len, opened.vocab_size, opened.documents) == (25, SEQ_LEN, 100, 3)
    assert [shard["rows"] for shard in opened.manifest["shards"]] == [10, 10, 5]
    index = np.random.default_rng(0).permutation(25)
    read_tokens, read_documents = opened.read(index)
    assert read_tokens.dtype == read_documents.dtype == np.int32
    assert (read_tokens == tokens[index]).all() and (read_documents == documents[index]).all()
    assert opened.tokens == (tokens != PAD).sum()
    counts = opened.token_counts()
    assert counts.dtype == np.int64 and counts[PAD] == 0
    assert (counts[1:] == np.bincount(tokens.ravel(), minlength=100)[1:]).all()
    assert opened.held_out() == HELD_OUT
    assert opened.tokenizer_path.read_bytes() == b"{}"
    opened.verify()


@pytest.mark.parametrize("vocab_size", [1 << 16, (1 << 16) + 64])
@pytest.mark.parametrize("most_documents", [256, 257])
def test_the_largest_numbers_fit(tmp_path: Path, vocab_size: int, most_documents: int) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    tokens = np.full((3, SEQ_LEN), vocab_size - 1, np.int32)
    documents = np.full((3, SEQ_LEN), most_documents - 1, np.int32)
    writer = ShardWriter(folder, SEQ_LEN, vocab_size, PAD)
    writer.write(tokens, documents)
    writer.finish(b"{}", [], COUNTS)
    read_tokens, read_documents = ShardSet.open(folder).read(np.arange(3))
    assert (read_tokens == tokens).all() and (read_documents == documents).all()
    size = (folder / "shard-00000.safetensors").stat().st_size
    per_token = (2 if vocab_size <= 1 << 16 else 4) + (1 if most_documents <= 256 else 2)
    assert size < 24 * per_token + 250


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    write(tmp_path / "c", rows=24)
    first, same, other = (ShardSet.open(tmp_path / name).hash for name in "abc")
    assert first == same != other


def test_a_truncated_shard_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "set")
    path = tmp_path / "set/shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CramError, match=r"shard-00001.safetensors: .* bytes, expected .*truncated.*; delete"):
        ShardSet.open(tmp_path / "set")
    path.unlink()
    with pytest.raises(CramError, match=r"shard-00001.safetensors: missing; delete the folder"):
        ShardSet.open(tmp_path / "set")


@pytest.mark.parametrize("name", ["shard-00002.safetensors", "tokenizer.json", "held_out.jsonl", "counts.safetensors"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path / "set")
    path = tmp_path / "set" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(CramError, match=rf"{name}: damaged, .*sha256"):
        ShardSet.open(tmp_path / "set").verify()


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    path = tmp_path / "set/shard-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[9] ^= 255
    path.write_bytes(data)
    with pytest.raises(CramError, match=r"shard-00000.safetensors: damaged header"):
        ShardSet.open(tmp_path / "set")


def test_a_folder_that_is_no_shard_folder(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"no shard folder, it holds no manifest.json"):
        ShardSet.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CramError, match=r"manifest.json"):
        ShardSet.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(CramError, match=r"manifest.json: format 99, this version reads 1"):
        ShardSet.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": shards.FORMAT_VERSION, "rows": 1}))
    with pytest.raises(CramError, match=r"manifest.json: damaged \(KeyError\('seq_len'\)\)"):
        ShardSet.open(tmp_path)
