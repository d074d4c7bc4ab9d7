import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cram.data.text import hub_source
from cram.data.text.document import Document, OnError
from cram.data.text.source import Source, StatedSize
from cram.data.text.sources import open_source
from cram.errors import CramError


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


def test_a_folder_that_cannot_be_searched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    source = open_source(f"hf:{tmp_path}")
    monkeypatch.setattr(Path, "rglob", forbidden)
    with pytest.raises(CramError, match=r"cannot be loaded \(PermissionError: .*Permission denied: 'there'\)"):
        source.fingerprint()


@pytest.mark.parametrize("spec", ["hf:", "hf:a:b:c:d", "hf:\udcff", "hf:a\nb", "hf:a:\x00"])
def test_a_malformed_hub_name(spec: str) -> None:
    with pytest.raises(CramError, match=r"expected hf:NAME\[:CONFIG\[:SPLIT\]\]"):
        open_source(spec)


def test_an_unreachable_hub_is_reported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    source = open_source("hf:some/dataset:config:train")
    began = time.monotonic()
    assert source.fingerprint() == source.fingerprint() != open_source("hf:some/other").fingerprint()
    with pytest.raises(CramError, match=r"^data.source='hf:some/dataset:config:train' cannot be loaded .*\n.*network"):
        texts(source)
    assert time.monotonic() - began < 5 * hub_source.ANSWER_SECONDS


def test_a_local_folder_as_a_hub_data_set(corpus: Path) -> None:
    source = open_source(f"hf:{corpus}", text_field="body")
    assert texts(source) == [f"text {number} {i}" for number in range(3) for i in range(5 + number)]
    before = source.fingerprint()
    (corpus / "train-1.jsonl").write_text('{"body": "changed", "id": 0}\n')
    assert source.fingerprint() != before
    with pytest.raises(CramError, match=r"hf:.* shard 1/3:1: no field 'text'; fields found: body, id"):
        texts(open_source(f"hf:{corpus}"))
    with pytest.raises(CramError, match=r"hf:.*:nowhere' cannot be loaded"):
        texts(open_source(f"hf:{corpus}::nowhere"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_hub_data_set_has_a_part_for_each_of_its_files(
    corpus: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    if kind == "parquet":
        for path in corpus.iterdir():
            pq.write_table(pa.Table.from_pylist([*map(json.loads, path.open())]), path.with_suffix(".parquet"))
            path.unlink()
    loaded: list[Any] = []
    load = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, **k: loaded.append(a) or load(*a, **k))  # type: ignore[func-returns-value]
    source = open_source(f"hf:{corpus}", text_field="body")
    assert not loaded
    assert [part.name for part in source.parts] == [f"hf:{corpus} shard {number}/3" for number in (1, 2, 3)]
    assert [part.size for part in source.parts] == [0, 0, 0]
    last = list(source.parts[2].documents())
    assert [document.text for document in last] == [f"text 2 {i}" for i in range(7)]
    assert last[6].origin == f"hf:{corpus} shard 3/3{':' if kind == 'jsonl' else ' record '}7"
    assert last == list(source.parts[2].documents())
    assert len(loaded) == 1


def test_broken_records_of_a_hub_data_set_are_skipped(corpus: Path) -> None:
    with (corpus / "train-0.jsonl").open("a") as file:
        file.write('{"body": null, "id": 5}\n{"body": "the last", "id": 6}\n')
    part = open_source(f"hf:{corpus}", text_field="body", on_error="skip").parts[0]
    *_, broken, last = part.documents()
    where = f"hf:{corpus} shard 1/3"
    assert broken == Document(
        "", f"{where}:6", f"{where}:6: field 'body' must be a string, found NoneType; set data.text_field"
    )
    assert last == Document("the last", f"{where}:7")
    with pytest.raises(CramError, match=rf"^{where}:6: field 'body' must be .*\nor set data.on_error=skip"):
        list(open_source(f"hf:{corpus}", text_field="body").parts[0].documents())


DATES = ["2020-01-01", "2021-02-03 04:05:06", "007", "NA", "1.50"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_text_that_looks_like_a_date_or_number_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "dates"
    folder.mkdir()
    for number, own in enumerate([DATES[:2], DATES[2:]]):
        lines = ["text", *own] if kind == "csv" else [json.dumps({"text": text}) for text in own]
        (folder / f"{number}.{kind}").write_text("\n".join(lines) + "\n")
    assert texts(open_source(f"hf:{folder}")) == DATES


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_broken_stream_is_an_error_even_with_skip(monkeypatch: pytest.MonkeyPatch, on_error: OnError) -> None:
    import datasets

    def records(shards: list[int]) -> Iterator[dict[str, str]]:
        for shard in shards:
            yield from ({"text": f"{shard} {i}"} for i in range(1000))
            if shard == 1:
                raise ConnectionError("reset by peer\nand a long story")

    stream = datasets.IterableDataset.from_generator(records, gen_kwargs={"shards": [0, 1, 2]})
    builder = SimpleNamespace(as_streaming_dataset=lambda split: stream)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(hub_source.HubSource, "revision", "abc")
    parts = open_source("hf:some/dataset", on_error=on_error).parts
    assert [len(list(parts[number].documents())) for number in (0, 2)] == [1000, 1000]
    documents = parts[1].documents()
    assert [document.text for document in islice(documents, 768)] == [f"1 {i}" for i in range(768)]
    with pytest.raises(CramError) as caught:
        list(documents)
    assert str(caught.value).splitlines() == [
        "hf:some/dataset shard 2/3 breaks off after record 768 (ConnectionError: reset by peer)",
        "run the same command again to continue; if the shard breaks off there again, it is damaged.",
    ]


def test_the_revision_is_asked_once_and_given_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked: list[str] = []
    loaded: list[str | None] = []

    def dataset_info(_: object, name: str, **__: object) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(sha=f"revision {len(asked)}")

    def load_dataset_builder(*_: object, revision: str | None, **__: object) -> SimpleNamespace:
        loaded.append(revision)
        stream = datasets.Dataset.from_list([{"text": "a"}]).to_iterable_dataset()
        return SimpleNamespace(as_streaming_dataset=lambda split: stream)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    source = open_source("hf:some/dataset")
    first = source.fingerprint()
    assert texts(source) == texts(source) == ["a"] and source.fingerprint() == first
    assert (asked, loaded) == (["some/dataset"], ["revision 1"])
    assert open_source("hf:some/dataset").fingerprint() != first, "of another revision"


CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  splits:
  - name: train
    num_bytes: 40000
    num_examples: 300
  - name: test
    num_bytes: 10000
    num_examples: 30
  download_size: 20000
  dataset_size: 50000
---
"""


def test_the_card_of_a_data_set_tells_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": "some text"}) + "\n")
    assert open_source(f"hf:{tmp_path}").stated_size is None
    (tmp_path / "README.md").write_text(CARD)
    hub_source._load.cache_clear()
    assert open_source(f"hf:{tmp_path}").stated_size == StatedSize(300, 0.0), "a local copy is not downloaded"
    assert open_source(f"hf:{tmp_path}:default:test").stated_size == StatedSize(30, 0.0)
    stream = hub_source._load(hub_source.Dataset(str(tmp_path), None, "train", None))
    monkeypatch.setattr(hub_source, "_load", lambda dataset: stream)
    monkeypatch.setattr(hub_source.HubSource, "revision", "0123abcd")
    assert open_source("hf:some/dataset").stated_size == StatedSize(300, 16000.0)
    assert open_source("hf:some/dataset:default:test").stated_size == StatedSize(30, 4000.0)
