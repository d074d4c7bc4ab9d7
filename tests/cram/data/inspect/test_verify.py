import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cram.data.inspect import verify
from cram.data.shards.order import open_order
from cram.data.shards.shards import ShardSet
from cram.files.sealed import write_checksums
from tests.cram.data.inspect.damage import LAST_SHARD, edit, fails, signed


def test_an_intact_folder_passes_and_is_not_written_to(intact: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in intact.rglob("*")}
    shards = verify.verify_shards(intact)
    assert (shards.folder, shards.rows) == (intact, ShardSet.open(intact).rows)
    assert {path: path.stat().st_mtime_ns for path in intact.rglob("*")} == before


def test_shards_are_checked_in_blocks_of_rows(intact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = verify._find_problem

    def problem(tokens: np.ndarray, *others: Any) -> str | None:
        seen.append(len(tokens))
        return real(tokens, *others)

    monkeypatch.setattr(verify, "_find_problem", problem)
    monkeypatch.setattr("cram.data.shards.shards.TOKENS_AT_ONCE", 32 * 50)
    shards = verify.verify_shards(intact)
    assert max(seen) == 50 and sum(seen) == shards.rows


@pytest.mark.parametrize(
    "name", ["shard-00001.safetensors", "counts.safetensors", "held_out.jsonl", "statistics.json", "tokenizer.json"]
)
def test_a_changed_bit_and_a_missing_file_are_found(folder: Path, name: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    fails(folder, rf"{name}: damaged, its sha256 is not the one in the manifest; delete the folder")
    path.unlink()
    fails(folder, rf"{name}: missing; delete the folder and run the same command again")


def test_a_truncated_shard(folder: Path) -> None:
    path = folder / LAST_SHARD
    path.write_bytes(path.read_bytes()[:-7])
    fails(folder, rf"{LAST_SHARD}: \d+ bytes, expected \d+ \(truncated\?\)")
    signed(folder, LAST_SHARD)
    fails(folder, rf"{LAST_SHARD}: damaged header")


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("cram.data.shards.shards.sha256_file", refuse)
    fails(folder, r"shard-00000.safetensors: cannot be read \(Input/output error\); delete the folder")


@pytest.mark.parametrize("name", ["statistics.json", "held_out.jsonl", "counts.safetensors"])
def test_a_manifest_that_does_not_list_a_file(folder: Path, name: str) -> None:
    edit(folder, lambda manifest: manifest["files"].pop(name))
    fails(folder, rf"manifest.json: {name} is not among its files; delete")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(rows=m["rows"] + 1), r"manifest.json: rows: \d+, but its other figures give \d+"),
        (lambda m: m["shards"][1].update(rows=7), r"shard-00001.safetensors: shape .*, expected \(7, 32\)"),
        (lambda m: m.update(tokens=m["tokens"] - 1), r"manifest.json: tokens: \d+, but \d+ in the rows"),
        (lambda m: m.update(seq_len=16), r"shard-00000.safetensors: shape"),
        (lambda m: m.update(vocab_size=256), r"manifest.json: vocab_size: 256, but the tokenizer needs 192"),
        (lambda m: m["files"].update({LAST_SHARD: "0" * 64}), rf"{LAST_SHARD}: damaged, .* sha256"),
        (lambda m: m["counts"].update(documents=1), r"manifest.json: counts.documents_in: \d+, but its other figures"),
        (lambda m: m["sources"][0].update(documents=1), r"manifest.json: documents of the sources: 1, but its other"),
        (lambda m: m["tokenizer"].update(sha256="00"), r"manifest.json: tokenizer.sha256: 00, but its other figures"),
        (lambda m: [one.update(fill=0.5) for one in m["packing"].values()], r"manifest.json: packing: .0.5., but .0"),
        (lambda m: m.pop("counts"), r"manifest.json: damaged \(KeyError\('counts'\)\)"),
        (lambda m: m.pop("dropped"), r"manifest.json: damaged \(KeyError\('dropped'\)\)"),
        (lambda m: m.update(format=1), r"manifest.json: format 1, this version of cram reads"),
        (lambda m: m["shards"].pop(), r"manifest.json: rows: \d+, but its other figures give \d+"),
    ],
)
def test_a_manifest_edited_by_hand(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(folder, change)
    fails(folder, message)


def test_documents_moved_between_the_figures_of_the_manifest(folder: Path) -> None:
    def move(manifest: dict[str, Any]) -> None:
        manifest["counts"]["documents"] -= 1
        manifest["counts"]["not_needed_documents"] += 1

    edit(folder, move)
    fails(folder, r"manifest.json: counts.documents: \d+, but \d+ in the rows")


def hold_out(folder: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    path = folder / "held_out.jsonl"
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    change(documents)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    signed(folder, path.name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda all: all[1].update(text=all[1]["text"] + " "), ":2: its hash is not the sha256 of its text"),
        (lambda all: all.reverse(), ": its documents are repeated or not in the order of their hashes"),
        (lambda all: all.insert(1, all[0]), ": its documents are repeated or not in the order of their hashes"),
        (lambda all: all.clear(), ": 0 documents, but the manifest counts"),
        (lambda all: all[0].pop("hash"), r": damaged \(TypeError"),
        (lambda all: all[0].update(text=5), r": damaged \(AttributeError"),
    ],
)
def test_held_out_documents_that_contradict_their_hashes_or_the_manifest(
    folder: Path, change: Callable[[list[dict[str, str]]], object], message: str
) -> None:
    hold_out(folder, change)
    fails(folder, rf"held_out.jsonl{message}")


def test_a_file_that_is_not_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    signed(folder, "tokenizer.json")
    edit(folder, lambda manifest: manifest["tokenizer"].update(sha256=manifest["files"]["tokenizer.json"]))
    fails(folder, r"tokenizer.json: not a tokenizer.json")


@pytest.mark.parametrize("name", ["likely_first", "unlikely_first", "shuffled-seed3-epoch1"])
def test_an_order_that_is_damaged_or_not_a_permutation(folder: Path, name: str) -> None:
    shards = ShardSet.open(folder)
    open_order(shards, "shuffled", seed=3, epoch=1)
    verify.verify_shards(folder)
    path = folder / "orders" / f"{name}.safetensors"
    others = [other.name for other in path.parent.glob("*.safetensors")]
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + bytes(4))
    fails(folder, rf"{name}.safetensors: damaged, or it belongs to other shards; delete the file, it will be")
    numbers = np.arange(shards.rows, dtype=np.uint32)
    for order in (numbers * 0, numbers[::-1] + np.uint32(1), numbers[1:].copy(), np.append(numbers, numbers[:1])):
        save_file({"order": order}, path, {"data": shards.hash})
        write_checksums(path.parent, others)
        fails(folder, rf"{name}.safetensors: it does not give each of the {shards.rows} rows once; delete the file")
    save_file({"rows": numbers}, path)
    fails(folder, rf"{name}.safetensors: damaged \(KeyError\('order'\)\); delete the file")
    (path.parent / "checksums.json").unlink()
    fails(folder, r"orders/checksums.json: there is no such file. Delete .*orders, it will be made again.")
    path.unlink()
    others.remove(path.name)
    write_checksums(path.parent, others)
    verify.verify_shards(folder)
    open_order(shards, "likely_first", seed=0, epoch=0)


def test_a_folder_that_is_not_a_shard_folder_is_refused(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", r"nowhere: not a shard folder, it has no manifest.json; run cram.prepare")
