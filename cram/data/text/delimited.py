"""A file of comma or tab separated values with a header -> its documents."""

import csv
import re
from collections.abc import Iterable, Iterator

from cram.data.text.decompression import DamagedFileError
from cram.data.text.document import Document, faulty_document
from cram.data.text.encodings import TextEncoding
from cram.data.text.lines import number_lines
from cram.data.text.records import no_field_document, text_document

# Characters of a field. A quotation mark that is never closed makes a field of the rest of the file.
LONGEST_FIELD = 1 << 26
# With the line ends of Unix, Windows and old Macs. A carriage return alone also ends a row outside of quotation marks,
# as other readers of such files have it.
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")


def read_delimited(
    chunks: Iterable[bytes], name: str, text_field: str, delimiter: str, encoding: TextEncoding
) -> Iterator[Document]:
    """Yield a document, or a document with a fault, for each row after the header.

    Fields may be quoted by `"`; a quoted field may hold delimiters and line ends, and `""` for a quotation mark.

    Args:
        chunks: of the decompressed file, as `encoding.convert` returns them.
        name: of the file.
        text_field: the column with the text.
        delimiter: between the fields.
        encoding: decodes a line.

    Raises:
        DamagedFileError: the file ends within a quoted field, or a field is too long.
    """
    rows = _read_rows(chunks, delimiter, encoding)
    _, header = next(rows, (1, []))
    if not header:
        return
    if header.count(text_field) > 1:
        yield faulty_document(
            name,
            f"{header.count(text_field)} columns are named {text_field!r}; rename all but one, or set data.text_field",
        )
        return
    place = header.index(text_field) if text_field in header else None
    for number, row in rows:
        origin = f"{name}:{number}"
        if place is None:
            yield no_field_document(header, text_field, origin)
        elif len(row) != len(header):
            problem = f"{len(row)} fields, and the header has {len(header)}; put a text with a delimiter in quotes"
            yield faulty_document(origin, problem)
        else:
            yield _field_document(row[place], text_field, origin, encoding)


def _read_rows(chunks: Iterable[bytes], delimiter: str, encoding: TextEncoding) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each row that is not blank, and the row's fields."""
    csv.field_size_limit(LONGEST_FIELD)  # of all readers of the process; the usual one is 131072
    at_end = False

    def lines() -> Iterator[str]:
        nonlocal at_end
        for _, line in number_lines(chunks):
            # A byte that cannot be decoded is only a fault of the row if it is in the text.
            text = line.decode(encoding.name, "surrogateescape") + "\n"
            yield from _LINES.findall(text) if "\r" in text else [text]
        at_end = True

    reader = csv.reader(lines(), delimiter=delimiter)
    first_line = 1
    try:
        for row in reader:
            # The reader asks for another line after the last one only if a quoted field is still open.
            if at_end:
                raise DamagedFileError(f"the quotation mark in line {first_line} is never closed")
            if row:
                yield first_line, row
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise DamagedFileError(f"line {first_line}: {error}") from error


def _field_document(text: str, text_field: str, origin: str, encoding: TextEncoding) -> Document:
    try:
        encoding.check_escapes(text)
    except UnicodeDecodeError as error:
        return faulty_document(origin, encoding.describe_error(error))
    return text_document(text, text_field, origin)
