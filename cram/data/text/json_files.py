"""A file of JSON -> its documents: one record a line, one array of records, or records that span several lines.

The kind of a `.json` file is told by its beginning. An array and records over several lines are read in bounded memory,
one record at a time.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from cram.data.text.decompression import DamagedFileError
from cram.data.text.document import Document, faulty_document
from cram.data.text.encodings import TextEncoding
from cram.data.text.lines import BYTE_ORDER_MARK, number_lines
from cram.data.text.records import record_document

LONGEST_RECORD = 1 << 25  # characters of a record in an array; more means that its end is missing
BLANK = BYTE_ORDER_MARK + b" \t\r\n"  # what may stand before the first record
WHITE = "\ufeff \t\r\n"
_TWO_LINES = re.compile(rb"[^\n]*\n\s*\S")
_STRING_REST = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # up to the closing quotation mark
_STRUCTURE = re.compile(r'["{}\[\],]')
_DEPTHS = {"{": 1, "[": 1, "}": -1, "]": -1}


def read_json_lines(chunks: Iterable[bytes], name: str, text_field: str, encoding: TextEncoding) -> Iterator[Document]:
    """Yield a document, or a document with a fault, for each line that is not blank.

    Args:
        chunks: of the decompressed file, as `encoding.convert` returns them.
        name: of the file.
        text_field: the field with the text, see `record_document`.
        encoding: decodes a line.
    """
    for number, line in number_lines(chunks):
        if record := line.strip():
            yield _json_document(record, text_field, f"{name}:{number}", encoding)


def read_json(chunks: Iterable[bytes], name: str, text_field: str, encoding: TextEncoding) -> Iterator[Document]:
    """Yield the documents of a `.json` file: of its array, of its records over several lines, or of its lines.

    Arguments as those of `read_json_lines`. The origin of a document has the number of the line, or in an array and
    for records over several lines the number of the record.

    Raises:
        DamagedFileError: the file ends within a record, there is something behind an array, or a record is too long.
    """
    rest = iter(chunks)
    beginning = _read_beginning(rest)
    whole = chain([beginning], rest)
    is_array = beginning.lstrip(BLANK).startswith(b"[")
    if not is_array and not _spans_lines(beginning, encoding):
        yield from read_json_lines(whole, name, text_field, encoding)
        return
    for number, record in enumerate(_split_records(encoding.decode_escaping(whole), is_array), start=1):
        origin = f"{name}:{number}"
        try:
            encoding.check_escapes(record)
        except UnicodeDecodeError as error:
            yield faulty_document(origin, encoding.describe_error(error))
        else:
            yield _parse_record(record, text_field, origin)


def _json_document(line: bytes, text_field: str, origin: str, encoding: TextEncoding) -> Document:
    try:
        text = encoding.decode(line)
    except UnicodeDecodeError as error:
        return faulty_document(origin, encoding.describe_error(error))
    return _parse_record(text, text_field, origin)


def _parse_record(text: str, text_field: str, origin: str) -> Document:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # broken JSON, a number of 5000 digits, 1000 nested lists
        return faulty_document(origin, f"broken JSON line ({error}); repair or remove it")
    return record_document(record, text_field, origin)


def _read_beginning(chunks: Iterator[bytes]) -> bytes:
    """Read until it is known whether the file is an array and whether its first record ends with its first line."""
    data = b""
    for chunk in chunks:
        data += chunk
        if data.lstrip(BLANK).startswith(b"[") or len(data) > LONGEST_RECORD:
            break
        if b"\n" in chunk and _TWO_LINES.match(data.lstrip(BLANK)):
            break
    return data


def _spans_lines(beginning: bytes, encoding: TextEncoding) -> bool:
    """Whether the first record of a file goes on behind its first line."""
    line, _, rest = beginning.lstrip(BLANK).partition(b"\n")
    if not rest.strip() or rest.lstrip().startswith(b"{"):
        return False  # what follows is another record, so that a first line that cannot be read is broken
    try:
        text = encoding.decode(line.strip())
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)  # all of the line is the beginning of a record
    except (ValueError, RecursionError):
        pass
    return False


def _split_records(texts: Iterable[str], is_array: bool) -> Iterator[str]:
    """Yield the text of each record of an array, or of records that follow each other.

    Raises:
        DamagedFileError: as `read_json`.
    """
    buffer, position, start = "", 0, 0  # start: of the record
    depth, in_string, found, closed = 0, False, 0, not is_array
    for text in texts:
        buffer, position, start = buffer[start:] + text, position - start, 0
        if len(buffer) > LONGEST_RECORD:
            raise DamagedFileError(f"record {found + 1} has no end: a bracket or quotation mark is missing")
        while position < len(buffer):
            if in_string:
                position, in_string = _skip_string(buffer, position)
                if in_string:
                    break
            match = _STRUCTURE.search(buffer, position)
            position = match.end() if match else len(buffer)
            sign = match[0] if match else ""
            in_string = sign == '"'
            if is_array and depth == 1 and sign in (",", "]") and not closed:
                record = buffer[start : position - 1].strip()
                start, closed = position, sign == "]"
                if record or found or not closed:
                    found += 1
                    yield record
            else:
                outside, depth = not depth, max(0, depth + _DEPTHS.get(sign, 0))
                if is_array and outside and depth:
                    start = position
                elif not is_array and not depth and sign in ("}", "]"):
                    found += 1
                    yield buffer[start:position].strip(WHITE)
                    start = position
    rest = buffer[start:].strip()
    if not closed or (rest and is_array):
        where = "something stands behind the end" if closed else "truncated: it ends in the middle"
        raise DamagedFileError(f"{where} of its array")
    if rest:
        yield rest


def _skip_string(buffer: str, position: int) -> tuple[int, bool]:
    """Return the position behind a quoted text, and whether its end is not in the buffer.

    Then the position is that of the end of the buffer, or of a backslash there.
    """
    position = _STRING_REST.match(buffer, position).end()  # type: ignore[union-attr]  # it matches an empty text too
    is_open = buffer[position : position + 1] != '"'
    return (position, True) if is_open else (position + 1, False)
