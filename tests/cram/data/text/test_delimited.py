import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.text import delimited
from cram.data.text.delimited import read_delimited
from cram.data.text.encodings import TextEncoding
from cram.errors import CramError
from tests.cram.data.text.files import COMPRESS, TEXTS, read

FIELD = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(FIELD, FIELD), max_size=5), st.sampled_from([",", "\t"]), st.integers(1, 40))
def test_rows_that_the_standard_library_wrote(rows: list[tuple[str, str]], delimiter: str, chunk_bytes: int) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([("id", "text"), *rows])
    content = stream.getvalue().encode()
    chunks = (content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes))
    documents = list(read_delimited(chunks, "a.csv", "text", delimiter, TextEncoding("utf-8")))
    assert [one.text for one in documents] == [text for _, text in rows]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_quoted_line_ends_and_long_fields(tmp_path: Path, suffix: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter="\t").writerows([("text", "id"), *((text, 1) for text in TEXTS)])
    path = tmp_path / f"a.tsv{suffix}"
    path.write_bytes(COMPRESS[suffix](b"\xef\xbb\xbf" + stream.getvalue().encode()))
    documents = read(path)
    assert [one.text for one in documents] == TEXTS
    assert documents[3].origin == f"{path.name}:6", "the third text has two lines"


def test_carriage_returns_alone_end_rows(tmp_path: Path) -> None:
    """Old Macs write them at line ends. One within a field without quotation marks costs that row, not the file."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,id\rone,1\r"two\rlines",2\r')
    assert [(one.text, one.origin) for one in read(path)] == [("one", "a.csv:2"), ("two\rlines", "a.csv:3")]
    path.write_bytes(b"text,id\none,1\ntw\ro,2\nthree,3\n")
    assert [one.text for one in read(path, on_error="skip") if not one.fault] == ["one", "o", "three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "a.csv:2: no field 'text'; fields found: a, b. Set data.text_field"),
        (b"text,text\n1,2\n", "a.csv: 2 columns are named 'text'; rename all but one"),
        (b"id,text\n1,a, b\n", "a.csv:2: 3 fields, and the header has 2; put a text with a delimiter in quotes"),
        (b"id,text\n1\n", "a.csv:2: 1 fields, and the header has 2"),
        (
            b"id,text\n1,\xe9t\xe9\n",
            "a.csv:2: not UTF-8 .byte 0xe9 at byte offset 0.; convert the file to UTF-8 or set",
        ),
        (b'id,text\n1,"abc\n2,d\n', "a.csv: damaged or not readable .the quotation mark in line 2 is never closed"),
        (b"id,text\n1," + b"x" * 300, "a.csv: damaged or not readable .line 2: field larger than field limit"),
    ],
)
def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str) -> None:
    monkeypatch.setattr(delimited, "LONGEST_FIELD", 200)
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(CramError, match=f"^{message}"):
        read(path)


def test_a_fault_of_another_column_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n\xe9,a\n\n2,b\n")
    assert [one.text for one in read(path)] == ["a", "b"]
    path.write_bytes(b"")
    assert read(path) == []
