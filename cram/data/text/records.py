"""A record of any format -> a document: the text field, by name or dotted path, and what may be wrong with it."""

from collections.abc import Iterator
from textwrap import shorten
from typing import Any

from cram.data.text.document import Document, faulty_document

LONGEST_LIST = 200  # characters of the field names in a message


def record_document(record: Any, text_field: str, origin: str) -> Document:
    """Make the document of a record, or a document with a fault if the record has no such text.

    Args:
        record: what was read; a dictionary, if it is in order.
        text_field: name of the field with the text, or the path to it: `meta.body` is the field `body` of the record
            in the field `meta`. A field whose own name is `meta.body` comes first.
        origin: the origin of the document.
    """
    if not isinstance(record, dict):
        return faulty_document(origin, f"a record must be an object, found {type(record).__name__}")
    if text_field in record:
        return text_document(record[text_field], text_field, origin)
    for value in _find_nested(record, text_field):
        return text_document(value, text_field, origin)
    return no_field_document(list(record), text_field, origin)


def text_document(text: Any, text_field: str, origin: str) -> Document:
    """Make a document of the value of a text field, or a document with a fault if it is not a valid text.

    A `UnicodeDecodeError` stands for a value that is not UTF-8.
    """
    if isinstance(text, UnicodeDecodeError):
        byte = f"byte 0x{text.object[text.start]:02x} at byte offset {text.start}"
        return faulty_document(origin, f"not UTF-8 ({byte}); convert the file to UTF-8")
    if not isinstance(text, str):
        return faulty_document(
            origin, f"field {text_field!r} must be a string, found {type(text).__name__}; set data.text_field"
        )
    try:
        text.encode()  # an eighth of the time of a search for surrogates
    except UnicodeEncodeError:
        return faulty_document(origin, "not UTF-8 (half of an escaped surrogate pair); repair or remove the record")
    return Document(text, origin)


def no_field_document(fields: list[str], text_field: str, origin: str) -> Document:
    """Make the document with a fault for a record that lacks the text field; `fields` are those that it has."""
    found = shorten(", ".join(fields) or "none", LONGEST_LIST, placeholder=" ...")
    return faulty_document(origin, f"no field {text_field!r}; fields found: {found}. Set data.text_field")


def split_path(path: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to split a dotted path into a field and the path within it, the longest field first."""
    end = path.rfind(".")
    while end >= 0:
        yield path[:end], path[end + 1 :]
        end = path.rfind(".", 0, end)


def _find_nested(record: dict[str, Any], path: str) -> Iterator[Any]:
    """Yield the values that a dotted path leads to, below the top level."""
    for field, rest in split_path(path):
        inner = record.get(field)
        if isinstance(inner, dict):
            if rest in inner:
                yield inner[rest]
            yield from _find_nested(inner, rest)
