import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cram.data.formats import Document, DocumentRule, read_documents
from cram.errors import CramError

TEXTS = ["First text.", "Zweiter Text, größer.", "third\nwith a line break", "x" * 300_000]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.compress(data[: len(data) // 2]) + zstandard.compress(data[len(data) // 2 :]),
}


def read(path: Path, text_field: str = "text", document: DocumentRule = "file") -> list[Document]:
    with path.open("rb") as raw:
        return list(read_documents(raw, path.name, text_field, document))


def json_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](json_lines(TEXTS)))
    documents = read(path)
    assert [document.text for document in documents] == TEXTS
    assert documents[2].origin == f"{path.name}:3"


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_damaged_compression_names_the_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    whole = COMPRESS[suffix](json_lines([str(number) for number in range(5000)]))
    path.write_bytes(whole[: len(whole) - 9] if damage == "truncated" else b"not compressed at all")
    with pytest.raises(CramError, match=rf"^a.jsonl{suffix}: .*(damaged|truncated)"):
        read(path)


def test_zstd_with_a_long_window(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    path = tmp_path / "a.jsonl.zst"
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size: as in streams
    path.write_bytes(compressor.compress(json_lines(TEXTS)) + compressor.flush())
    assert [document.text for document in read(path)] == TEXTS


def test_parquet_streams_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"text {number}" for number in range(1200)]
    pq.write_table(pa.table({"id": range(1200), "text": texts}), path, row_group_size=500)
    documents = read(path)
    assert [document.text for document in documents] == texts
    assert documents[700].origin == "a.parquet:701"


def test_damaged_parquet_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing of the kind")
    with pytest.raises(CramError, match=r"^a.parquet: damaged parquet file"):
        read(path)
    pq.write_table(pa.table({"text": [str(number) for number in range(9000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 3000 + whole[3100:])
    with pytest.raises(CramError, match=r"^a.parquet: damaged"):
        read(path)


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0")
    column = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(CramError, match=r"^a.parquet: not UTF-8 \(one of the 512 records from 1 on"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_missing_field_names_those_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_text('{"content": "x", "id": 1}\n')
    else:
        pq.write_table(pa.table({"content": ["x"], "id": [1]}), path)
    with pytest.raises(CramError, match=rf"^{name}:1: no field 'text'; fields found: content, id. Set data.text_field"):
        read(path)
    assert read(path, text_field="content") == [Document("x", f"{name}:1")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_text_that_is_no_string(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_text('{"text": 5}\n')
    else:
        pq.write_table(pa.table({"text": [5]}), path)
    with pytest.raises(CramError, match=rf"^{name}:1: field 'text' must be a string, found int"):
        read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut', r"a.jsonl:2: broken JSON line \(Unterminated string"),
        (b'["text"]', r"a.jsonl:2: a record must be an object, found list"),
        (b'{"text": "\xff"}', r"a.jsonl:2: not UTF-8 \(byte 0xff at byte offset 10\)"),
        (b'{"text": "\\ud83d alone"}', r"a.jsonl:2: not UTF-8 \(half of an escaped surrogate pair\)"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(CramError, match=f"^{message}"):
        read(path)


def test_blank_lines_between_records_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\r\n\r\n{"text": "b"}')
    assert read(path) == [Document("a", "a.jsonl:1"), Document("b", "a.jsonl:3")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("file", [("one\r\ntwo\n\n \nthree", "a.txt")]),
        ("blank_line", [("one\ntwo", "a.txt:1"), ("three", "a.txt:5")]),
        ("line", [("one", "a.txt:1"), ("two", "a.txt:2"), ("", "a.txt:3"), (" ", "a.txt:4"), ("three", "a.txt:5")]),
    ],
)
def test_what_a_document_is_in_a_text_file(tmp_path: Path, rule: DocumentRule, expected: list[tuple[str, str]]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n \nthree")
    assert [(document.text, document.origin) for document in read(path, document=rule)] == expected


@pytest.mark.parametrize(("rule", "where"), [("file", "a.txt: "), ("line", "a.txt:2: "), ("blank_line", "a.txt:2: ")])
def test_text_that_is_not_utf8(tmp_path: Path, rule: DocumentRule, where: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(CramError, match=f"^{where}not UTF-8 .byte 0xf6 at byte offset"):
        read(path, document=rule)
