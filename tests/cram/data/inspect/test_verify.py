import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cram.config.recipe import read_config
from cram.data.inspect import verify
from cram.data.preparation import row_writer
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.order import open_order
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.files.sealed import read_sealed, write_checksums, write_sealed
from cram.terminal.progress import Progress

PAD, CLS, SEP = 0, 2, 3
LAST_SHARD = "shard-00002.safetensors"
Change = Callable[[dict[str, np.ndarray]], None]


@pytest.fixture(scope="module", params=["greedy", "best_fit"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[[Path], list[str]]
) -> Path:
    """A shard folder of three shards that is as it should be."""
    words = [*tiny_run(tmp_path_factory.mktemp("verify")), f"data.packing={request.param}", "data.tokens=12000"]
    config = read_config([*words, "data.filters.compressibility=null"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_writer, "TOKENS_PER_SHARD", 120 * 32)
        patch.setattr("cram.data.preparation.chunks.CHUNK_DOCUMENTS", 50)
        patch.setattr("cram.data.shards.pack.WINDOW_TOKENS", 1000)
        shards = prepare_shards(config.data, TokenizerSource(wordpiece=config.wordpiece), Progress(terminal=False))
    assert len(shards.manifest["shards"]) > 2
    return shards.folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return shutil.copytree(made, tmp_path / "set")


def fails(folder: Path, message: str) -> None:
    with pytest.raises(CramError, match=message) as error:
        verify.verify_shards(folder)
    assert len(str(error.value).splitlines()) <= 2
    assert str(folder) in str(error.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, with a checksum that holds: what a look at the contents must find."""
    manifest = read_sealed(folder / "manifest.json")
    change(manifest)
    write_sealed(folder / "manifest.json", manifest)


def signed(folder: Path, name: str) -> None:
    """Make the manifest say that a file is as it is."""
    data = (folder / name).read_bytes()

    def sign(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = sha256(data).hexdigest()
        for shard in manifest["shards"]:
            if shard["file"] == name:
                shard["bytes"] = len(data)

    edit(folder, sign)


def rewrite(folder: Path, name: str, change: Change) -> None:
    """Change the arrays of a file, and the manifest with it."""
    arrays = load_file(folder / name)
    change(arrays)
    save_file(arrays, folder / name)
    signed(folder, name)


def test_a_set_that_is_as_it_was_made(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    shards = verify.verify_shards(made)
    assert (shards.folder, shards.rows) == (made, ShardSet.open(made).rows)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_shards_are_read_some_rows_at_a_time(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = verify._find_problem

    def problem(tokens: np.ndarray, *others: Any) -> str | None:
        seen.append(len(tokens))
        return real(tokens, *others)

    monkeypatch.setattr(verify, "_find_problem", problem)
    monkeypatch.setattr("cram.data.shards.shards.TOKENS_AT_ONCE", 32 * 50)
    shards = verify.verify_shards(made)
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
)  # fmt: skip
def test_a_manifest_edited_by_hand(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(folder, change)
    fails(folder, message)


def test_documents_moved_between_the_figures_of_the_manifest(folder: Path) -> None:
    def move(manifest: dict[str, Any]) -> None:
        manifest["counts"]["documents"] -= 1
        manifest["counts"]["not_needed_documents"] += 1

    edit(folder, move)
    fails(folder, r"manifest.json: counts.documents: \d+, but \d+ in the rows")


def token_beyond_the_vocabulary(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"][5, 3] = 192


def negative_token(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"] = arrays["tokens"].astype(np.int32)
    arrays["tokens"][5, 3] = -1


def first_document_is_not_0(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"][2] += 1


def document_left_out(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"][2, 17:] += 2


def documents_backwards(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"][4] = np.sort(arrays["documents"][4])[::-1]
    arrays["documents"][4, 0], arrays["documents"][4, -2:] = 0, [1, 0]


def documents_backwards_with_a_sign(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"] = arrays["documents"].astype(np.int32)
    documents_backwards(arrays)


def padding_in_mid_row(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"][4, 3] = PAD


def row_of_padding(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"][4], arrays["documents"][4] = PAD, 0


def padding_in_a_document(arrays: dict[str, np.ndarray]) -> None:
    row = int(np.flatnonzero((arrays["tokens"] != PAD).all(axis=1))[0])
    arrays["tokens"][row, -1] = PAD
    arrays["documents"][row, -1] = arrays["documents"][row, -2]


def padding_of_two_documents(arrays: dict[str, np.ndarray]) -> None:
    row = int(np.flatnonzero((arrays["tokens"] != PAD).all(axis=1))[0])
    arrays["tokens"][row, -2:] = PAD
    arrays["documents"][row, -2:] = arrays["documents"][row, -3] + np.array([1, 2])


def border_in_mid_document(arrays: dict[str, np.ndarray]) -> None:
    row = int(np.flatnonzero((arrays["documents"] == 0).all(axis=1))[0])
    arrays["documents"][row, 9:] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (token_beyond_the_vocabulary, "it contains token 192, but the vocabulary has 0 to 191"),
        (negative_token, "it contains token -1, but the vocabulary has 0 to 191"),
        (first_document_is_not_0, "documents are not numbered 0, 1, 2 ... along a row"),
        (document_left_out, "documents are not numbered 0, 1, 2 ... along a row"),
        (documents_backwards, "documents are not numbered 0, 1, 2 ... along a row"),
        (documents_backwards_with_a_sign, "documents are not numbered 0, 1, 2 ... along a row"),
        (padding_in_mid_row, "padding is followed by other tokens"),
        (row_of_padding, "padding is followed by other tokens"),
        (padding_in_a_document, "padding is not a separate document"),
        (padding_of_two_documents, "padding is not a separate document"),
        (border_in_mid_document, r"a document ends without a separator before the next one"),
    ],
)
def test_rows_that_no_packer_makes(folder: Path, change: Change, message: str) -> None:
    rewrite(folder, "shard-00001.safetensors", change)
    fails(folder, rf"set/shard-00001.safetensors: {message}; delete the folder")


def test_a_token_that_became_another(folder: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        place = tuple(np.argwhere(arrays["tokens"] > 10)[0])
        arrays["tokens"][place] -= 1

    rewrite(folder, LAST_SHARD, change)
    fails(folder, r"counts.safetensors: its counts of tokens are not those of the rows")


def test_counts_of_other_rows(folder: Path) -> None:
    def counts(arrays: dict[str, np.ndarray]) -> None:
        arrays["counts"][50] += 1

    rewrite(folder, "counts.safetensors", counts)
    fails(folder, r"counts.safetensors: its counts of tokens are not those of the rows")
    rewrite(folder, "counts.safetensors", lambda arrays: arrays.pop("counts"))  # type: ignore[arg-type,return-value]
    fails(folder, r"counts.safetensors: damaged \(KeyError\('counts'\)\)")
    (folder / "counts.safetensors").write_bytes(b"nothing")
    signed(folder, "counts.safetensors")
    fails(folder, r"counts.safetensors: damaged \(SafetensorError")


@pytest.mark.parametrize("step", [1, -1, None])
def test_lengths_of_other_documents(folder: Path, step: int | None) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        lengths = arrays["lengths"]
        most = int(lengths.argmax())
        if step:
            lengths[[most, most + step]] += np.array([-1, 1])
        else:
            lengths[0] += 1

    rewrite(folder, "counts.safetensors", change)
    fails(folder, r"counts.safetensors: its lengths of documents are not those of the rows")


def test_very_long_documents_share_a_place(folder: Path) -> None:
    def cut(arrays: dict[str, np.ndarray]) -> None:
        lengths = arrays["lengths"]
        arrays["lengths"] = np.append(lengths[:30], lengths[30:].sum())

    rewrite(folder, "counts.safetensors", cut)
    verify.verify_shards(folder)


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
def test_held_out_documents_that_are_not_what_they_say(
    folder: Path, change: Callable[[list[dict[str, str]]], object], message: str
) -> None:
    hold_out(folder, change)
    fails(folder, rf"held_out.jsonl{message}")


def test_a_tokenizer_that_is_none(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    signed(folder, "tokenizer.json")
    edit(folder, lambda manifest: manifest["tokenizer"].update(sha256=manifest["files"]["tokenizer.json"]))
    fails(folder, r"tokenizer.json: not a tokenizer.json")


@pytest.mark.parametrize("name", ["likely_first", "unlikely_first", "shuffled-seed3-epoch1"])
def test_an_order_that_is_damaged_or_no_permutation(folder: Path, name: str) -> None:
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


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", r"nowhere: not a shard folder, it has no manifest.json; run cram.prepare")
