import pyarrow as pa
import pytest

from cram.data.text.arrow_files import read_arrow
from cram.data.text.records import record_document

RECORD = {"a": {"b": {"c": "deep", "d": 1}, "b.c": "own name within"}, "x": {"y": "nested"}, "x.y": "own name"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("x.y", "own name"),
        ("a.b.c", "deep"),
        ("a.b", None),
        ("a.b.d", None),
        ("a.b.e", None),
        ("a..b", None),
        ("x.y.z", None),
    ],
)
def test_a_dotted_path_names_a_nested_field(path: str, text: str | None) -> None:
    record = RECORD | {"a": {"b": RECORD["a"]["b"]}}  # type: ignore[index]
    document = record_document(record, path, "here")
    assert (document.text or None) == text and (document.fault is None) == (text is not None)
    table = pa.Table.from_pylist([record])
    (from_arrow,) = read_arrow(table, table.schema, path, "", 1)
    assert (from_arrow.text, from_arrow.fault is None) == (document.text, document.fault is None)


def test_a_field_whose_own_name_holds_a_dot_wins_within_records_too() -> None:
    assert record_document(RECORD, "a.b.c", "here").text == "own name within"


def test_a_missing_nested_field_lists_the_fields() -> None:
    fault = record_document(RECORD, "a.q", "here").fault
    assert fault == "here: no field 'a.q'; fields found: a, x, x.y. Set data.text_field"
