import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.text import json_files
from cram.data.text.document import Document
from cram.data.text.encodings import TextEncoding
from cram.data.text.json_files import read_json
from cram.errors import CramError
from tests.cram.data.text.files import TEXTS, read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(st.text(), VALUES, max_size=2).map(lambda more: more | {"text": json.dumps(more)}))


def texts(content: bytes, chunk_bytes: int = 7) -> list[str | None]:
    """The texts of a file that comes in chunks; None in place of a fault."""
    chunks = (content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes))
    documents: list[Document] = list(read_json(chunks, "a.json", "text", TextEncoding("utf-8")))
    return [None if one.fault else one.text for one in documents]


@given(RECORDS, st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 50))
def test_an_array_of_records(records: list[Any], indent: int | None, ascii: bool, chunk_bytes: int) -> None:
    content = json.dumps(records, indent=indent, ensure_ascii=ascii).encode(errors="replace")
    assert texts(content, chunk_bytes) == [one["text"] for one in json.loads(content)]


@given(RECORDS, st.sampled_from([None, 0, 2]), st.integers(1, 50))
def test_records_one_after_the_other(records: list[Any], indent: int | None, chunk_bytes: int) -> None:
    content = "\n".join(json.dumps(record, indent=indent) for record in records).encode()
    assert texts(content, chunk_bytes) == [record["text"] for record in records]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\xef\xbb\xbf [{"text": "a"}]', ["a"]),
        (b"[]", []),
        (b"", []),
        (b'[{"text": "a"}, 5, {"text": 1}, {"text": "b"}]', ["a", None, None, "b"]),
        (b'[{"text": "a"} {"text": "b"}, {"text": "c"}]', [None, "c"]),
        (b'[{"text": "a"},]', ["a", None]),
        (b'[{"text": "\xff"}, {"text": "b"}]', [None, "b"]),
        (b'{"text": "a\n{"text": "b"}\n', [None, "b"]),  # a broken line does not end the file
        (b'{\n"text": "a"}\n\n {"text": "b"}\n', ["a", "b"]),
        (b'{"text": "a"}\n{"text": "b"}', ["a", "b"]),
        (b'{\n"text": "a\\\\"}', ["a\\"]),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_beginning(content: bytes, expected: list[str | None]) -> None:
    for chunk_bytes in (1, 7, 1000):
        assert texts(content, chunk_bytes) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[{"text": "a"}, {"text": "b"', "truncated: it ends in the middle of its array"),
        (b'[{"text": "a"}] {"text": "b"}', "something stands behind the end of its array"),
        (b'[{"text": "' + b"x" * 300 + b'"}]', "record 1 has no end: a bracket or quotation mark is missing"),
    ],
)
def test_a_damaged_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str) -> None:
    monkeypatch.setattr(json_files, "LONGEST_RECORD", 200)
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CramError, match=rf"^a.json: damaged or not readable \({reason}\)"):
        read(path)


def test_long_texts_and_origins(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": text} for text in TEXTS], indent=1))
    assert [(one.text, one.origin) for one in read(path)] == [(text, f"a.json:{i + 1}") for i, text in enumerate(TEXTS)]
