import json
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cram.data.text import remote
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.errors import CramError
from tests.cram.data.text.files import COMPRESS, TEXTS, json_lines

BUCKET = "cram-test"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of a bucket with three kinds of files."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    system = fsspec.filesystem("s3", client_kwargs={"endpoint_url": server}, use_listings_cache=False)
    system.mkdir(BUCKET)
    system.pipe(f"{BUCKET}/texts/a.jsonl.gz", COMPRESS[".gz"](json_lines(TEXTS)))
    system.pipe(f"{BUCKET}/texts/b.txt", b"second")
    system.pipe(f"{BUCKET}/texts/notes.pdf", b"not text")
    with system.open(f"{BUCKET}/texts/inner/c.parquet", "wb") as file:
        pq.write_table(pa.table({"id": range(900), "text": [f"row {row}" for row in range(900)]}), file)
    yield system
    system.rm(BUCKET, recursive=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


EXPECTED = [*TEXTS, "second", *(f"row {row}" for row in range(900))]


def test_a_folder_of_a_bucket(bucket: Any) -> None:
    source = open_source(f"s3://{BUCKET}/texts")
    assert [part.name for part in source.parts] == [
        f"s3://{BUCKET}/texts/{name}" for name in ("a.jsonl.gz", "b.txt", "inner/c.parquet")
    ]
    assert all(part.size for part in source.parts)
    assert texts(source) == EXPECTED
    again = pickle.loads(pickle.dumps(source))
    assert texts(again) == EXPECTED and len(pickle.dumps(source.parts)) < 3000
    assert [position for _, position in source.parts[1].read()] == [6]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("texts/b.txt", ["second"]),
        ("texts/*.txt", ["second"]),
        ("t*/[ab].*", [*TEXTS, "second"]),
        ("texts/**/*.parquet", EXPECTED[5:]),
    ],
)
def test_files_and_globs_of_a_bucket(bucket: Any, address: str, expected: list[str]) -> None:
    assert texts(open_source(f"s3://{BUCKET}/{address}")) == expected


def test_the_fingerprint_follows_the_content(bucket: Any) -> None:
    address = f"s3://{BUCKET}/texts"
    before = open_source(address).fingerprint()
    assert open_source(address).fingerprint() == before
    bucket.pipe(f"{BUCKET}/texts/b.txt", b"changed"[:6])
    changed = open_source(address).fingerprint()
    assert changed != before
    bucket.pipe(f"{BUCKET}/texts/b.txt", b"second")
    assert open_source(address).fingerprint() == before, "the checksum of the store is of the content alone"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"s3://{BUCKET}/texts/gone.txt", "there is no such file, folder or bucket\ncheck the address"),
        (f"s3://{BUCKET}/gone/*.txt", "there is no such file, folder or bucket"),
        ("s3://no-such-bucket/texts", "there is no such file, folder or bucket"),
        (f"s3://{BUCKET}/texts/z*.txt", "matches no file; give a file, a folder or a glob"),
        (f"s3://{BUCKET}/texts/notes.pdf", "notes.pdf has no supported extension; supported: .txt"),
    ],
)
def test_addresses_where_nothing_is(bucket: Any, address: str, message: str) -> None:
    with pytest.raises(CramError, match=rf"^data.source='{address.replace('*', '.')}'.*{message}"):
        open_source(address)


def test_a_connection_that_breaks_off(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe(f"{BUCKET}/texts/b.txt", b"line\n" * 100_000)
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 16)
    part = open_source(f"s3://{BUCKET}/texts/b.txt", document_rule="line", on_error="skip").parts[0]
    fetch = sys.modules["s3fs.core"].S3File._fetch_range

    def fail_later(file: Any, start: int, end: int) -> bytes:
        if start:
            raise OSError("reset by peer\nand a long story")
        data: bytes = fetch(file, start, end)
        return data

    monkeypatch.setattr("s3fs.core.S3File._fetch_range", fail_later)
    documents = part.documents()
    assert next(documents).text == "line"
    with pytest.raises(CramError) as caught:
        list(documents)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"s3://{BUCKET}/texts/b.txt breaks off after document ")
    assert first.endswith(" (OSError: reset by peer)") and second.startswith("run the same command again")


def test_a_parquet_file_whose_connection_breaks_off(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    part = open_source(f"s3://{BUCKET}/texts/inner/c.parquet", on_error="skip").parts[0]
    monkeypatch.setattr("s3fs.core.S3File._fetch_range", lambda *_, **__: 1 / 0)
    with pytest.raises(CramError, match=r"c.parquet breaks off after document 0"):
        list(part.documents())


def test_access_that_is_denied(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr("s3fs.S3FileSystem.info", deny)
    with pytest.raises(CramError, match=r"access is denied \(PermissionError: Forbidden\)\ncheck the credentials"):
        open_source(f"s3://{BUCKET}/texts")


def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(CramError, match=r"^data.source='s3://bucket/a.txt' cannot be reached .*\ncheck the address"):
        open_source("s3://bucket/a.txt")
    assert time.monotonic() - began < 10
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_web_address_is_missing_only_if_its_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(CramError, match=r"cannot be reached \(ClientConnectorError: .*\)\ncheck the address and the"):
        open_source("http://127.0.0.1:9/a.txt")

    class StatusError(Exception):
        status = 404

    def raise_missing(*_: object) -> None:
        raise FileNotFoundError from StatusError("the server refuses")

    server = SimpleNamespace(info=raise_missing, invalidate_cache=lambda: None)
    monkeypatch.setattr(remote, "_open_system", lambda address: (server, address))
    with pytest.raises(CramError, match="there is no such file"):
        open_source("http://127.0.0.1:9/a.txt")
    StatusError.status = 403
    with pytest.raises(CramError, match=r"cannot be reached \(StatusError: the server refuses\)"):
        open_source("http://127.0.0.1:9/a.txt")


def test_an_address_of_the_hub_is_a_file_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "hf://datasets/roneneldan/TinyStories/a.txt"
    file = remote.RemoteFile(address, 5, "blob_id 1")
    monkeypatch.setattr("cram.data.text.remote_source.list_remote", lambda *_: [file])
    assert [(part.name, part.size) for part in open_source(address).parts] == [(address, 5)]


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", lambda *_, **__: time.sleep(3))
    with pytest.raises(CramError, match=r"^data.source='memory://a.txt' does not answer within 0 seconds\ncheck the"):
        open_source("memory://a.txt")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://b/a.txt", r"needs a package that is not installed \(.*\)\npip install -e '.\[s3\]'"),
        ("gs://b/a.txt", r"needs a package that is not installed \(.*\)\npip install -e '.\[gs\]'"),
        ("abfs://b/a.txt", r"needs a package that is not installed \(.*\)\ninstall the package that reads such"),
        ("nosuch://b/a.txt", r"cannot be reached \(ValueError: Protocol not known: nosuch\)"),
    ],
)
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, package, None)
    for scheme in ("s3", "gs", "abfs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(CramError, match=f"^data.source='{address}' {message}"):
        open_source(address)


def test_files_in_memory_and_behind_a_local_address(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/texts/a.jsonl", json_lines(TEXTS))
    source = open_source("memory://texts")
    assert texts(source) == TEXTS
    before = source.fingerprint()
    time.sleep(0.01)
    system.pipe("/texts/a.jsonl", json_lines(TEXTS[::-1]))
    assert open_source("memory://texts").fingerprint() != before
    system.rm("/texts", recursive=True)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "local"}]))
    assert texts(open_source(f"file://{tmp_path}")) == ["local"]
