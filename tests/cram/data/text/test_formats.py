import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.data.text import decompression
from cram.data.text.document import Document
from cram.data.text.formats import read_documents
from cram.data.text.lines import split_lines
from cram.data.text.options import DocumentRule, ReadingOptions
from cram.errors import CramError
from tests.cram.data.text.files import COMPRESS, TEXTS, json_lines, read


def read_skipping(path: Path, document_rule: DocumentRule = "file") -> list[Document]:
    """The documents with the faults among them; two readings must agree."""
    documents = read(path, document_rule=document_rule, on_error="skip")
    assert documents == read(path, document_rule=document_rule, on_error="skip")
    for one in documents:
        assert one.fault is None or (one.text == "" and one.fault.startswith(f"{path.name}:") and "\n" not in one.fault)
    return documents


def text_column(values: list[bytes]) -> pa.StringArray:
    """A column of strings that pyarrow does not look into."""
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(values)))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](json_lines(TEXTS)))
    documents = read(path)
    assert [document.text for document in documents] == TEXTS
    assert documents[2].origin == f"{path.name}:3"


@pytest.mark.parametrize("name", ["c4-train.00000-of-01024.json.gz", "a.ndjson", "A.JSONL.XZ"])
def test_json_lines_under_other_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(COMPRESS[path.suffix.lower() if name[-3:] in (".gz", ".XZ") else ""](json_lines(TEXTS)))
    assert [document.text for document in read(path)] == TEXTS


def test_json_lines_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json_lines(TEXTS))
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
    with pytest.raises(CramError, match=r"^a.parquet: damaged or not readable \(Parquet magic bytes not found"):
        read(path)
    pq.write_table(pa.table({"text": [str(number) for number in range(9000)]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 3000 + whole[3100:])
    with pytest.raises(CramError, match=r"^a.parquet: damaged"):
        read(path)


def test_parquet_with_two_columns_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = [pa.array(TEXTS), pa.array(TEXTS), pa.array(range(len(TEXTS)))]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text", "number"]), path)
    with pytest.raises(CramError, match=r"^a.parquet: 2 columns are named 'text'; rename all but one, or set data.tex"):
        read(path)
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "other", "other"]), path)
    assert [document.text for document in read(path)] == TEXTS


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": text_column([b"one", b"tw\xff", b"three"])}), path)
    with pytest.raises(CramError, match=r"^a.parquet:2: not UTF-8 \(byte 0xff at byte offset 2\); convert"):
        read(path)
    documents = read_skipping(path)
    assert [document.text for document in documents] == ["one", "", "three"]
    assert [document.fault is None for document in documents] == [True, False, True]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_missing_field_names_the_fields_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_text('{"content": "x", "id": 1}\n')
    else:
        pq.write_table(pa.table({"content": ["x"], "id": [1]}), path)
    with pytest.raises(CramError, match=rf"^{name}:1: no field 'text'; fields found: content, id. Set data.text_field"):
        read(path)
    assert read(path, text_field="content") == [Document("x", f"{name}:1")]


def test_parquet_without_the_field_has_a_fault_for_each_record(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(700)}), path)
    faults = read_skipping(path)
    assert [broken.origin for broken in faults] == [f"a.parquet:{number}" for number in range(1, 701)]
    assert faults[600].fault == "a.parquet:601: no field 'text'; fields found: id. Set data.text_field"


def test_a_message_names_some_of_many_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({f"field\n{number}": 0 for number in range(1000)}))
    (broken,) = read_skipping(path)
    assert broken.fault and "field 0, field 1, " in broken.fault and len(broken.fault) < 300


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_text_that_is_not_a_string(tmp_path: Path, name: str) -> None:
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
        (b'{"text": "x", "id": ' + b"9" * 5000 + b"}", r"a.jsonl:2: broken JSON line \(Exceeds the limit"),
        (b"[" * 100_000, r"a.jsonl:2: broken JSON line \(maximum recursion depth"),
        (b'{"id": "x"}', r"a.jsonl:2: no field 'text'; fields found: id"),
        (b'{"text": null}', r"a.jsonl:2: field 'text' must be a string, found NoneType"),
        (b'["text"]', r"a.jsonl:2: a record must be an object, found list"),
        (b'{"text": "\xff"}', r"a.jsonl:2: not UTF-8 \(byte 0xff at byte offset 10\)"),
        (b'{"text": "\\ud83d alone"}', r"a.jsonl:2: not UTF-8 \(half of an escaped surrogate pair\)"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b'\n{"text": "good as well"}\n')
    with pytest.raises(CramError, match=f"^{message}.*\nor set data.on_error=skip, which leaves .* out[.]$"):
        read(path)
    good, broken, good_as_well = read_skipping(path)
    assert broken.fault and re.match(message, broken.fault) and broken.origin == "a.jsonl:2"
    assert (good, good_as_well) == (Document("good", "a.jsonl:1"), Document("good as well", "a.jsonl:3"))


def test_blank_lines_between_records_are_skipped(tmp_path: Path) -> None:
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
def test_document_rules_of_text_files(tmp_path: Path, rule: DocumentRule, expected: list[tuple[str, str]]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n \nthree")
    assert [(document.text, document.origin) for document in read(path, document_rule=rule)] == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk", [1, 2, 1 << 16])
def test_line_ends_of_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, chunk: int) -> None:
    monkeypatch.setattr(decompression, "CHUNK_BYTES", chunk)
    path = tmp_path / "a.txt"
    path.write_bytes(f"one{end}{end}two{end}three{end}".encode())
    assert [document.text for document in read(path, document_rule="line")] == ["one", "", "two", "three"]
    assert [document.text for document in read(path, document_rule="blank_line")] == ["one", "two\nthree"]


@pytest.mark.parametrize(("rule", "where"), [("file", "a.txt: "), ("line", "a.txt:2: "), ("blank_line", "a.txt:2: ")])
def test_text_that_is_not_utf8(tmp_path: Path, rule: DocumentRule, where: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(CramError, match=f"^{where}not UTF-8 .byte 0xf6 at byte offset"):
        read(path, document_rule=rule)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("file", [("", "a.txt", True)]),
        ("line", [("a", "a.txt:1", False), ("", "a.txt:2", True), ("", "a.txt:3", False), ("c", "a.txt:4", False)]),
        ("blank_line", [("", "a.txt:1", True), ("c", "a.txt:4", False)]),
    ],
)
def test_a_line_that_is_not_utf8_is_skipped_with_its_document(
    tmp_path: Path, rule: DocumentRule, expected: list[tuple[str, str, bool]]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\nb\xff\n\nc\n")
    found = read_skipping(path, rule)
    assert [(document.text, document.origin, document.fault is not None) for document in found] == expected


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst", "parquet"])
def test_a_truncated_file_ends_in_one_fault(tmp_path: Path, suffix: str) -> None:
    texts = [random.Random(number).randbytes(70).hex() for number in range(5000)]  # hardly compressible
    path = tmp_path / ("a.parquet" if suffix == "parquet" else f"a.jsonl{suffix}")
    if suffix == "parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, use_dictionary=False, compression="gzip")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 4) + whole[len(whole) * 3 // 4 :])
    else:
        whole = COMPRESS[suffix](json_lines(texts))
        path.write_bytes(whole[: len(whole) // 2])
    *documents, last = read_skipping(path)
    assert [document.text for document in documents] == texts[: len(documents)]
    assert 1000 < len(documents) < 3000
    assert last.fault and last.fault.startswith(f"{path.name}: damaged or not readable (")


def test_a_column_whose_name_is_not_utf8_is_damage() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"], "other": ["b"]}), buffer)
    damaged = buffer.getvalue().replace(b"other", b"\x80ther")
    (document,) = read_documents(io.BytesIO(damaged), "a.parquet", ReadingOptions(on_error="skip"))
    assert document.fault and document.fault.startswith("a.parquet: damaged or not readable (")


@given(st.sampled_from(sorted([*COMPRESS, "parquet"])), st.integers(0), st.binary(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_is_a_fault_and_no_exception(suffix: str, place: int, damage: bytes) -> None:
    texts = [f"{number} größer" for number in range(300)]
    if suffix == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": texts}), buffer, row_group_size=100)
        name, whole = "a.parquet", buffer.getvalue()
    else:
        name, whole = f"a.jsonl{suffix}", COMPRESS[suffix](json_lines(texts))
    place %= len(whole)
    damaged = whole[:place] + damage + whole[place + len(damage) :]
    first, second = (list(read_documents(io.BytesIO(damaged), name, ReadingOptions(on_error="skip"))) for _ in range(2))
    assert first == second
    if any(document.fault for document in first):
        with pytest.raises(CramError):
            list(read_documents(io.BytesIO(damaged), name, ReadingOptions()))


@given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"a", b"\n"))))
def test_lines_do_not_depend_on_how_they_come_in_chunks(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert list(split_lines(chunks)) == (whole.removesuffix(b"\n").split(b"\n") if whole else [])
