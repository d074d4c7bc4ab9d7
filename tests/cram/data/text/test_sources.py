import json
import os
import pickle
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cram.data.text import hub_source, pydocs
from cram.data.text.document import Document, OnError
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.errors import CramError


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = open_source(f"{tmp_path}/**/*.txt")
    assert texts(source) == ["a.txt", "b.txt", "sub/c.txt"]
    for part in source.parts:
        (position,) = (position for _, position in part.read())
        assert position == part.size > 0


def test_fingerprint_is_of_names_and_contents_not_of_folders(tmp_path: Path) -> None:
    def fingerprint(folder: str, name: str, content: str) -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        return open_source(str(path)).fingerprint()

    base = fingerprint("1", "a.txt", "x")
    assert fingerprint("2", "a.txt", "x") == base
    assert fingerprint("3", "b.txt", "x") != base
    assert fingerprint("4", "a.txt", "y") != base
    (tmp_path / "1/deeper").mkdir()
    (tmp_path / "1/deeper/a.txt").write_text("other text, same name")
    assert open_source(f"{tmp_path}/1/**/a.txt").fingerprint() != base


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))
    path.write_text('{"text": ""}\n{"text": "a text"}\n')
    source = open_source(f"{tmp_path}/*.jsonl")
    assert len(source.fingerprint()) == 64
    _, document = source.parts[0].documents()
    assert (document.text, Path(document.origin).name) == ("a text", "caf\\xe9.jsonl:2")


@pytest.mark.parametrize("folder", ["br[2024]", "a,b", "a #b", "a=b", "a: b", "a{b}", "a$b", "a'b", "*", "日本"])
def test_an_existing_file_is_taken_literally(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "a[1].txt"
    path.parent.mkdir()
    path.write_text("a text")
    assert [part.name for part in open_source(str(path)).parts] == [str(path)]


def test_a_folder_stands_for_the_files_below_it(tmp_path: Path) -> None:
    for name in ("b.txt", "deeper/a.jsonl.gz", "notes.pdf", "deeper/er/C.PARQUET"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "deeper" / "round").symlink_to(tmp_path)
    found = [Path(part.name).relative_to(tmp_path) for part in open_source(str(tmp_path)).parts]
    assert [str(path) for path in found] == ["b.txt", "deeper/a.jsonl.gz", "deeper/er/C.PARQUET"]
    (tmp_path / "notes.pdf").unlink()
    found = [Path(part.name).relative_to(tmp_path) for part in open_source(f"{tmp_path}/**").parts]
    assert [str(path) for path in found] == ["b.txt", "deeper/a.jsonl.gz", "deeper/er/C.PARQUET"]
    (tmp_path / "c.txt").symlink_to("b.txt")  # a file of two names is two files
    assert len(open_source(f"{tmp_path}/**/*.txt").parts) == 2


def test_a_source_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"data.source='.*none.\*' matches no file"):
        open_source(f"{tmp_path}/none.*")


def test_an_unsupported_extension(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(CramError, match=r"a.pdf has no supported extension; supported: .txt, .text, .md, .jsonl,"):
        open_source(f"{tmp_path}/*")


def test_an_unreadable_record_is_named_by_path_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{"text"\n')
    with pytest.raises(CramError, match=rf"^{path}:2: broken JSON line"):
        list(open_source(str(path)).parts[0].documents())


def test_a_folder_that_cannot_be_looked_through_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_hub_out_of_reach_answers_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    source = open_source("hf:some/dataset:config:train")
    began = time.monotonic()
    assert source.fingerprint() == source.fingerprint() != open_source("hf:some/other").fingerprint()
    with pytest.raises(CramError, match=r"^data.source='hf:some/dataset:config:train' cannot be loaded .*\n.*network"):
        texts(source)
    assert time.monotonic() - began < 5 * hub_source.ANSWER_SECONDS


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of 5, 6 and 7 records."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(3):
        records = [{"body": f"text {number} {i}", "id": i} for i in range(5 + number)]
        (folder / f"train-{number}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_local_folder_as_a_hub_data_set(corpus: Path) -> None:
    source = open_source(f"hf:{corpus}", text_field="body")
    assert texts(source) == [f"text {number} {i}" for number in range(3) for i in range(5 + number)]
    before = source.fingerprint()
    (corpus / "train-1.jsonl").write_text('{"body": "changed", "id": 0}\n')
    assert source.fingerprint() != before
    with pytest.raises(CramError, match=r"hf:.* shard 1/3 record 1: no field 'text'; fields found: body, id"):
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
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: loaded.append(a) or load(*a, **k))  # type: ignore[func-returns-value]
    source = open_source(f"hf:{corpus}", text_field="body")
    assert not loaded
    assert [part.name for part in source.parts] == [f"hf:{corpus} shard {number}/3" for number in (1, 2, 3)]
    assert [part.size for part in source.parts] == [0, 0, 0]
    last = list(source.parts[2].documents())
    assert [document.text for document in last] == [f"text 2 {i}" for i in range(7)]
    assert last[6].origin == f"hf:{corpus} shard 3/3 record 7"
    assert last == list(source.parts[2].documents())
    assert len(loaded) == 1


def test_broken_records_of_a_hub_data_set_are_skipped(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_source, "RECORDS_AT_ONCE", 2)
    with (corpus / "train-0.jsonl").open("a") as file:
        file.write('{"body": null, "id": 5}\n{"body": "the last", "id": 6}\n')
    part = open_source(f"hf:{corpus}", text_field="body", on_error="skip").parts[0]
    *_, broken, last = part.documents()
    where = f"hf:{corpus} shard 1/3 record"
    assert broken == Document(
        "", f"{where} 6", f"{where} 6: field 'body' must be a string, found NoneType; set data.text_field"
    )
    assert last == Document("the last", f"{where} 7")
    with pytest.raises(CramError, match=rf"^{where} 6: field 'body' must be .*\nor set data.on_error=skip"):
        list(open_source(f"hf:{corpus}", text_field="body").parts[0].documents())


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_stream_that_breaks_off_is_never_passed_over(monkeypatch: pytest.MonkeyPatch, on_error: OnError) -> None:
    import datasets

    def records(shards: list[int]) -> Iterator[dict[str, str]]:
        for shard in shards:
            yield from ({"text": f"{shard} {i}"} for i in range(1000))
            if shard == 1:
                raise ConnectionError("reset by peer\nand a long story")

    stream = datasets.IterableDataset.from_generator(records, gen_kwargs={"shards": [0, 1, 2]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    monkeypatch.setattr(hub_source.HubSource, "revision", "abc")
    parts = open_source("hf:some/dataset", on_error=on_error).parts
    assert [len(list(parts[number].documents())) for number in (0, 2)] == [1000, 1000]
    documents = parts[1].documents()
    assert [document.text for document in islice(documents, 768)] == [f"1 {i}" for i in range(768)]
    with pytest.raises(CramError) as caught:
        list(documents)
    assert str(caught.value).splitlines() == [
        "hf:some/dataset shard 2/3 breaks off after record 768 (ConnectionError: reset by peer)",
        "run the same command again to continue; if the shard breaks off there again, it is damaged",
    ]


def test_the_revision_is_asked_once_and_given_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked: list[str] = []
    loaded: list[str | None] = []

    def dataset_info(_: object, name: str, **__: object) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(sha=f"revision {len(asked)}")

    def load_dataset(*_: object, revision: str | None, **__: object) -> datasets.IterableDataset:
        loaded.append(revision)
        return datasets.Dataset.from_list([{"text": "a"}]).to_iterable_dataset()

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source("hf:some/dataset")
    first = source.fingerprint()
    assert texts(source) == texts(source) == ["a"] and source.fingerprint() == first
    assert (asked, loaded) == (["some/dataset"], ["revision 1"])
    assert open_source("hf:some/dataset").fingerprint() != first, "of another revision"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    (tmp_path / "c.jsonl").write_text('{"text": "good as well"}\n')
    pattern = f"{tmp_path}/*.jsonl"
    stop = open_source(pattern)
    message = rf"^{tmp_path}/b.jsonl: cannot be read \(No such file.*leave it out\nor set data.on_error=skip"
    with pytest.raises(CramError, match=message):
        texts(stop)
    with pytest.raises(CramError, match=message):
        stop.fingerprint()
    skip = open_source(pattern, on_error="skip")
    good, broken, good_as_well = (list(part.documents()) for part in skip.parts)
    assert [document.text for document in good + good_as_well] == ["good", "good as well"]
    where = f"{tmp_path}/b.jsonl"
    reason = "cannot be read (No such file or directory); make it readable or leave it out"
    assert broken == [Document("", where, f"{where}: {reason}")]
    fingerprint = skip.fingerprint()
    assert fingerprint == open_source(pattern, on_error="skip").fingerprint()
    (tmp_path / "gone.jsonl").write_text("")
    assert skip.fingerprint() != fingerprint, "the file is there again"


def test_a_file_of_the_installation_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "find_documentation", lambda: [("p/a.md", tmp_path / "gone.md")])
    with pytest.raises(CramError, match=r"^p/a.md: cannot be read \(No such file.*\nor set data.on_error=skip"):
        texts(open_source("pydocs"))
    skip = open_source("pydocs", on_error="skip")
    assert texts(skip) == [""] and skip.fingerprint()


def test_a_pipe_is_not_waited_for_and_a_device_not_read_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("/dev/zero")
    for name in ("a", "b"):
        source = open_source(f"{tmp_path}/{name}.jsonl")
        for read in (lambda source=source: texts(source), source.fingerprint):
            with pytest.raises(CramError, match=rf"^{tmp_path}/{name}.jsonl: cannot be read \(it is a pipe, a device"):
                read()
    skip = open_source(f"{tmp_path}/*", on_error="skip")
    assert texts(skip) == ["", ""] and skip.fingerprint()


def test_broken_records_and_files_among_good_ones_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text"\n{"text": "two"}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "c.txt").write_text("three")
    source = open_source(f"{tmp_path}/*", on_error="skip")
    found = [document for part in source.parts for document in part.documents()]
    assert [document.text for document in found] == ["one", "", "two", "", "three"]
    assert [Path(document.origin).name for document in found if document.fault] == ["a.jsonl:2", "b.jsonl.gz"]
    for part in source.parts:
        assert all(0 < position <= part.size for _, position in part.read())
    with pytest.raises(CramError, match="no supported extension"):
        open_source(f"{__file__}", on_error="skip")
    with pytest.raises(CramError, match="matches no file"):
        open_source(f"{tmp_path}/none", on_error="skip")


@pytest.mark.parametrize("spec", ["{}/*.jsonl", "hf:{}"])
def test_a_source_reads_the_same_after_pickling(corpus: Path, spec: str) -> None:
    source = open_source(spec.format(corpus), text_field="body")
    assert len(texts(source)) == 18
    assert texts(pickle.loads(pickle.dumps(source))) == texts(source)
