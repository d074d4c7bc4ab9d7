import json
from pathlib import Path

import numpy as np
import pytest

from cram.data.shards import shards
from cram.data.shards.shards import HeldOutDocument, ShardSet, ShardWriter
from cram.errors import CramError
from cram.files.sealed import write_sealed

SEQ_LEN, PAD = 8, 0
HELD_OUT = [HeldOutDocument("held\u2028out \x85 text", "00aa"), HeldOutDocument("other", "00bb")]
COUNTS = {"counts": {"documents": 3}}


def made(rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows)
    tokens = random.integers(0, 100, (rows, SEQ_LEN), dtype=np.int32)
    return tokens, np.sort(random.integers(0, 4, (rows, SEQ_LEN), dtype=np.int32))


def append(writer: ShardWriter, tokens: np.ndarray, documents: np.ndarray) -> None:
    """Write five rows at a time, and a shard of every ten."""
    for start in range(0, len(tokens), 5):
        writer.write(tokens[start : start + 5], documents[start : start + 5])
        if writer.buffered >= 10:
            writer.flush()


def write(folder: Path, rows: int = 25) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir()
    tokens, documents = made(rows)
    writer = ShardWriter(folder, SEQ_LEN, 100, PAD)
    append(writer, tokens, documents)
    writer.finish(b"{}", HELD_OUT, COUNTS)
    return tokens, documents


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    tokens, documents = write(tmp_path / "set")
    opened = ShardSet.open(tmp_path / "set")
    assert (opened.rows, opened.seq_len, opened.vocab_size, opened.documents) == (25, SEQ_LEN, 100, 3)
    assert [shard["rows"] for shard in opened.manifest["shards"]] == [10, 10, 5]
    index = np.random.default_rng(0).permutation(25)
    read_tokens, read_documents = opened.read(index)
    assert (read_tokens.dtype, read_documents.dtype) == (np.uint16, np.uint8)
    assert (read_tokens == tokens[index]).all() and (read_documents == documents[index]).all()
    assert opened.tokens == (tokens != PAD).sum()
    counts = opened.token_counts()
    assert counts.dtype == np.int64 and counts[PAD] == 0
    assert (counts[1:] == np.bincount(tokens.ravel(), minlength=100)[1:]).all()
    assert opened.held_out() == HELD_OUT
    assert opened.tokenizer_path.read_bytes() == b"{}"
    opened.verify()


def test_a_shard_holds_the_rows_between_two_flushes(tmp_path: Path) -> None:
    tokens, documents = made(25)
    writer = ShardWriter(tmp_path, SEQ_LEN, 100, PAD)
    writer.flush()
    writer.write(tokens[:0], documents[:0])
    writer.flush()
    assert writer.rows == writer.buffered == 0 and not list(tmp_path.iterdir())
    for rows in (3, 1, 0, 21):
        before = writer.rows
        writer.write(tokens[before : before + rows], documents[before : before + rows])
        assert (writer.rows, writer.buffered) == (before, rows)
        writer.flush()
        assert (writer.rows, writer.buffered) == (before + rows, 0)
    writer.finish(b"{}", [], COUNTS)
    opened = ShardSet.open(tmp_path)
    assert [shard["rows"] for shard in opened.manifest["shards"]] == [3, 1, 21]
    assert (opened.read(np.arange(25))[0] == tokens).all()


def test_a_writer_continues_from_a_state(tmp_path: Path) -> None:
    tokens, documents = write(tmp_path / "whole")
    (tmp_path / "set").mkdir()
    first = ShardWriter(tmp_path / "set", SEQ_LEN, 100, PAD)
    append(first, tokens[:20], documents[:20])
    counts, state = first.state()
    counts, state = counts.copy(), json.loads(json.dumps(state))
    append(first, tokens[20:], documents[20:])
    first.flush()  # what was written behind the state is written again
    second = ShardWriter(tmp_path / "set", SEQ_LEN, 100, PAD)
    second.load(counts, state)
    assert (second.rows, second.buffered) == (20, 0)
    append(second, tokens[20:], documents[20:])
    second.finish(b"{}", HELD_OUT, COUNTS)
    whole, again = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "set"))
    assert whole == again


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_state_whose_shards_are_damaged_is_refused(tmp_path: Path, damage: str) -> None:
    tokens, documents = made(20)
    writer = ShardWriter(tmp_path, SEQ_LEN, 100, PAD)
    append(writer, tokens, documents)
    path = tmp_path / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    if damage == "gone":
        path.unlink()
    other = ShardWriter(tmp_path, SEQ_LEN, 100, PAD)
    with pytest.raises(ValueError, match=r"shard-00001.safetensors is missing or damaged"):
        other.load(*writer.state())
    assert other.rows == 0 and not other.state()[0].any()


def test_lengths_of_documents_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "without")
    assert ShardSet.open(tmp_path / "without").lengths().tolist() == [0]
    (tmp_path / "with").mkdir()
    writer = ShardWriter(tmp_path / "with", SEQ_LEN, 100, PAD)
    append(writer, *made(10))
    writer.finish(b"{}", [], COUNTS, np.array([0, 0, 7, 1]))
    lengths = ShardSet.open(tmp_path / "with").lengths()
    assert lengths.tolist() == [0, 0, 7, 1] and lengths.dtype == np.int64


def test_a_file_beside_the_shards_is_listed_with_its_checksum(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, SEQ_LEN, 100, PAD)
    append(writer, *made(10))
    writer.write_file("statistics.json", b"[]")
    writer.finish(b"{}", [], COUNTS)
    ShardSet.open(tmp_path).verify()
    (tmp_path / "statistics.json").write_bytes(b"[ ]")
    with pytest.raises(CramError, match=r"statistics.json: damaged"):
        ShardSet.open(tmp_path).verify()


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


def test_shards_of_different_widths_are_read_together(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, SEQ_LEN, 100, PAD)
    tokens, documents = made(20)
    documents[15] = 256  # too many for the bytes of the first shard
    append(writer, tokens, documents)
    writer.finish(b"{}", [], COUNTS)
    opened = ShardSet.open(tmp_path)
    for order in (np.arange(20), np.arange(20)[::-1], np.array([3, 15, 3])):
        read_tokens, read_documents = opened.read(order)
        assert (read_tokens == tokens[order]).all() and (read_documents == documents[order]).all()
    blocks = list(opened.blocks())
    assert [path.name for path, _, _ in blocks] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    assert [block.dtype for _, _, block in blocks] == [np.uint8, np.uint16]
    assert (np.concatenate([block for _, _, block in blocks]) == documents).all()


def test_blocks_have_a_limited_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "TOKENS_AT_ONCE", 4 * SEQ_LEN)
    tokens, documents = write(tmp_path / "set")
    blocks = list(ShardSet.open(tmp_path / "set").blocks())
    assert [len(block) for _, block, _ in blocks] == [4, 4, 2, 4, 4, 2, 4, 1]
    assert (np.concatenate([block for _, block, _ in blocks]) == tokens).all()
    assert (np.concatenate([block for _, _, block in blocks]) == documents).all()


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


@pytest.mark.parametrize("read", ["token_counts", "lengths", "held_out", "tokenizer_path"])
def test_a_file_is_compared_with_its_checksum_when_it_is_read(tmp_path: Path, read: str) -> None:
    write(tmp_path / "set")
    opened = ShardSet.open(tmp_path / "set")
    for name in ("counts.safetensors", "held_out.jsonl", "tokenizer.json"):
        path = tmp_path / "set" / name
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CramError, match=r"damaged, its sha256 is not the one in the manifest; delete"):
        value = getattr(opened, read)
        value()


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    path = tmp_path / "set/shard-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[9] ^= 255
    path.write_bytes(data)
    with pytest.raises(CramError, match=r"shard-00000.safetensors: damaged header"):
        ShardSet.open(tmp_path / "set")


def test_a_folder_that_is_not_a_shard_folder(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"not a shard folder, it has no manifest.json"):
        ShardSet.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CramError, match=r"manifest.json"):
        ShardSet.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(CramError, match=rf"format 99, this version of cram reads {shards.FORMAT_VERSION}; delete"):
        ShardSet.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": shards.FORMAT_VERSION, "rows": 1}))
    with pytest.raises(CramError, match=r"manifest.json: damaged or edited, .* own sha256 says; delete the folder"):
        ShardSet.open(tmp_path)
    write_sealed(tmp_path / "manifest.json", {"format": shards.FORMAT_VERSION, "rows": 1})
    with pytest.raises(CramError, match=r"manifest.json: damaged \(KeyError\('seq_len'\)\)"):
        ShardSet.open(tmp_path)


def test_a_folder_of_shard_folders_names_them(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"not a shard folder, it has no manifest.json; run cram.prepare"):
        ShardSet.open(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    with pytest.raises(CramError, match=r"it has no manifest.json; name one inside it: a, b$"):
        ShardSet.open(tmp_path)
