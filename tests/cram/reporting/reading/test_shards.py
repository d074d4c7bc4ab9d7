import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.files.atomic import sha256_file
from cram.files.sealed import write_sealed
from cram.reporting.reading.shards import read_shards
from tests.cram.data.inspect.small_folder import CLS, PAD, SEP, prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return prepared(tmp_path_factory.mktemp("report") / "corpus")


@pytest.fixture
def shards(made: ShardSet, tmp_path: Path) -> ShardSet:
    """A copy of the folder that a test may change."""
    return ShardSet.open(shutil.copytree(made.folder, tmp_path / "set"))


def test_what_is_read_is_what_the_folder_holds(made: ShardSet) -> None:
    data = read_shards(made.folder)
    manifest = made.manifest
    assert (data.rows, data.tokens, data.hash) == (made.rows, made.tokens, made.hash)
    assert data.counts == manifest["counts"]
    assert data.sources == [("corpus.jsonl", manifest["sources"][0]["bytes"], 216)]
    assert {line.reason: line.documents for line in data.fates if line.reason} == {
        reason: entry["documents"] for reason, entry in manifest["dropped"].items()
    }
    assert ("filters.min_words", "12") in data.settings and ("filters.symbols", "null") in data.settings
    statistics = json.loads((made.folder / "statistics.json").read_text())
    assert {reason: len(samples) for reason, samples in data.samples.items()} == {
        reason: len(samples) for reason, samples in statistics["samples"].items()
    }
    assert [pair.similarity for pair in data.pairs] == [pair["similarity"] for pair in statistics["duplicates"]]
    assert data.preparation is not None and data.preparation.stages[-1].name == "all"


def test_tokens_are_ranked_and_named(made: ShardSet) -> None:
    figures = read_shards(made.folder).tokens_by_rank
    counts, tokenizer = made.token_counts(), Tokenizer.from_file(str(made.tokenizer_path))
    first, last = figures.frequent[0], figures.rare[0]
    assert first.count == counts.max() == counts[tokenizer.token_to_id(first.token)]
    assert last.count == counts[counts > 0].min() and last.rank == np.count_nonzero(counts)
    assert [one.rank for one in figures.named] == [1, 4, 16, 64, last.rank]
    assert figures.special["sep"] == "[SEP]"


def test_rows_are_shown_with_the_tokens_that_frame_their_documents(made: ShardSet) -> None:
    rows = read_shards(made.folder).text_rows
    assert len(rows) >= 4
    assert max(len(row.documents) for row in rows) == made.read(np.arange(made.rows // 2, made.rows))[1].max() + 1
    for row in rows:
        (tokens,), (documents,) = made.read(np.array([row.number]))
        assert row.padding == (tokens == PAD).sum()
        for number, document in enumerate(row.documents):
            ids = tokens[(documents == number) & (tokens != PAD)]
            assert document.tokens == len(ids)
            assert (document.opening == "[CLS]") == (ids[0] == CLS) == document.begins
            assert (document.closing == "[SEP]") == (ids[-1] == SEP) == document.ends
            assert "[CLS]" not in document.body and "[SEP]" not in document.body
            assert " ".join(filter(None, [document.opening, document.body, document.closing])) == document.text


def test_a_folder_without_timing_tells_no_time(shards: ShardSet) -> None:
    (shards.folder / "timing.json").unlink()
    assert read_shards(shards.folder).preparation is None


def test_a_folder_of_an_earlier_version_tells_less(shards: ShardSet) -> None:
    manifest = dict(shards.manifest)
    del manifest["held_out_check"]
    write_sealed(shards.folder / "manifest.json", manifest)
    data = read_shards(shards.folder)
    assert data.held_out_check == {} and data.mixture == []


def edited(shards: ShardSet, name: str, content: str) -> None:
    """Write a file of the folder, and its checksum into the manifest."""
    path = shards.folder / name
    path.write_text(content)
    files = shards.manifest["files"] | {name: sha256_file(path)}
    write_sealed(shards.folder / "manifest.json", shards.manifest | {"files": files})


@pytest.fixture
def damaged(request: pytest.FixtureRequest, shards: ShardSet) -> Iterator[Path]:
    folder = shards.folder
    if request.param == "no manifest":
        (folder / "manifest.json").unlink()
    elif request.param == "manifest cut":
        (folder / "manifest.json").write_text('{"format": 4, ')
    elif request.param == "manifest edited":
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"documents_in": 216', '"documents_in": 217'))
    elif request.param == "other format":
        write_sealed(folder / "manifest.json", shards.manifest | {"format": 3})
    elif request.param == "no counts":
        write_sealed(folder / "manifest.json", shards.manifest | {"counts": {"documents": 3}})
    elif request.param == "no shard":
        (folder / "shard-00000.safetensors").unlink()
    elif request.param == "statistics changed":
        (folder / "statistics.json").write_text("{}")
    elif request.param == "statistics lack samples":
        edited(shards, "statistics.json", "{}")
    elif request.param == "tokenizer":
        edited(shards, "tokenizer.json", "{}")
    elif request.param == "timing":
        (folder / "timing.json").write_text("{}")
    yield folder


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("no manifest", r"^data=\S+/set: not a shard folder, it has no manifest.json; run cram.prepare$"),
        ("manifest cut", r"^data=\S+/set/manifest.json: not a readable JSON file"),
        ("manifest edited", r"^data=\S+/set/manifest.json: damaged or edited.*prepare it again with cram.prepare.$"),
        ("other format", r"^data=\S+/set/manifest.json: format 3, this version of cram reads 4; delete the folder and"),
        ("no counts", r"^data=\S+/set: its files are damaged or of another version \(KeyError\('documents_in'\)\)"),
        ("no shard", r"^data=\S+/set/shard-00000.safetensors: missing; delete the folder and prepare it again"),
        ("statistics changed", r"^data=\S+/set/statistics.json: damaged, its sha256 is not the one in the manifest"),
        ("statistics lack samples", r"^data=\S+/set: its files are damaged or of another version \(KeyError"),
        ("tokenizer", r"^data=\S+/set/tokenizer.json: not a tokenizer.json"),
        ("timing", r"^data=\S+/set/timing.json: damaged or edited.*; delete it, then the table of times is left out.$"),
    ],
    indirect=["damaged"],
)
def test_a_damaged_folder_is_refused(damaged: Path, message: str) -> None:
    with pytest.raises(CramError, match=message) as error:
        read_shards(damaged)
    assert len(str(error.value).splitlines()) <= 2


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"data=\S+/none: not a shard folder"):
        read_shards(tmp_path / "none")
