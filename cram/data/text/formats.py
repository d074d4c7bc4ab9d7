"""One open file -> its documents, for every file format, streamed in bounded memory.

Nothing that a file holds raises an exception here: a record that cannot be read becomes a document with a fault, and
so does the place from which on a file is damaged.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from textwrap import shorten
from typing import Any, BinaryIO, Literal, TypeAlias

from cram.data.text.decompression import COMPRESSIONS, READ_ERRORS, DamagedFileError, read_chunks
from cram.data.text.document import Document, OnError, faulty_document, stop_at_fault

DocumentRule: TypeAlias = Literal["file", "blank_line", "line"]

TEXT_EXTENSIONS = (".txt", ".text", ".md")
JSON_EXTENSIONS = (".jsonl", ".json", ".ndjson")
EXTENSIONS = (
    *(kind + compression for kind in (*TEXT_EXTENSIONS, *JSON_EXTENSIONS) for compression in COMPRESSIONS),
    ".parquet",
)
SUPPORTED = (
    f"{', '.join((*TEXT_EXTENSIONS, *JSON_EXTENSIONS))}, each also with {', '.join(COMPRESSIONS[1:])}, and .parquet"
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # editors on Windows write it before UTF-8
PARQUET_ROWS = 512  # rows that are turned into text at once
LONGEST_LIST = 200  # characters of the field names in a message


def read_documents(
    raw: BinaryIO, name: str, text_field: str, document_rule: DocumentRule, on_error: OnError = "stop"
) -> Iterator[Document]:
    """Yield the documents of an open file. Every reading of a file gives the same sequence, faults included.

    Args:
        raw: the file, opened for reading bytes.
        name: name of the file, for messages; it ends in one of `EXTENSIONS`, in lower or upper case.
        text_field: the field that holds the text of a record.
        document_rule: what one document is in a .txt file.
        on_error: "skip" yields documents with a fault, "stop" raises at the first one.

    Raises:
        CramError: at the first fault, if `on_error` is "stop". The message names the file and line.
    """
    return stop_at_fault(_read_until_damage(raw, name, text_field, document_rule), on_error)


def read_arrow(
    batch: Any, fields: Sequence[str], text_field: str, origin_prefix: str, first_number: int
) -> Iterator[Document]:
    """Yield a document, or a document with a fault, for each record of an Arrow record batch or table.

    Args:
        batch: the records. Only their column `text_field` is read.
        fields: the names of all fields of the records, for messages.
        text_field: the field that holds the text.
        origin_prefix: the origin of a document is this prefix and the number of its record.
        first_number: the number of the first record.
    """
    numbers = range(first_number, first_number + batch.num_rows)
    origins = (f"{origin_prefix}{number}" for number in numbers)
    if text_field in fields:
        for text, origin in zip(_column_values(batch.column(text_field)), origins, strict=True):
            yield _text_document(text, text_field, origin)
    else:
        for origin in origins:
            yield _record_document(dict.fromkeys(fields), text_field, origin)


def _read_until_damage(raw: BinaryIO, name: str, text_field: str, document_rule: DocumentRule) -> Iterator[Document]:
    extension, compression = _split_extensions(name)
    try:
        if extension == ".parquet":
            yield from _read_parquet(raw, name, text_field)
        elif extension in TEXT_EXTENSIONS:
            yield from _read_plain_text(read_chunks(raw, compression), name, document_rule)
        else:
            yield from _read_json_lines(read_chunks(raw, compression), name, text_field)
    except READ_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield faulty_document(name, f"damaged or not readable ({reason}); replace the file or leave it out")


def _split_extensions(name: str) -> tuple[str, str]:
    """Return the extension of the content and that of the compression ("" for none) of a file name."""
    lowered = name.lower()
    compression = next((ending for ending in COMPRESSIONS if ending and lowered.endswith(ending)), "")
    bare = lowered.removesuffix(compression)
    return bare[bare.rindex(".") :], compression


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pieces: list[bytes] = []  # of a line that spans many chunks: joined once, not at each chunk
    for chunk in chunks:
        first, *lines = chunk.split(b"\n")
        pieces.append(first)
        if lines:
            yield b"".join(pieces)
            yield from lines[:-1]
            pieces = lines[-1:]
    if rest := b"".join(pieces):
        yield rest


def _unify_newlines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Replace the line ends of Windows (\r\n) and of old Macs (\r) by line feeds."""
    held_back = b""  # a carriage return at the end of a chunk: the next chunk may begin with its line feed
    for chunk in chunks:
        data = held_back + chunk
        held_back = b"\r" if data.endswith(b"\r") else b""
        yield data.removesuffix(held_back).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _read_json_lines(chunks: Iterable[bytes], name: str, text_field: str) -> Iterator[Document]:
    for number, line in enumerate(_split_lines(chunks), start=1):
        if record := (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip():
            yield _json_document(record, text_field, f"{name}:{number}")


def _json_document(line: bytes, text_field: str, origin: str) -> Document:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _not_utf8(error, origin)
    except (ValueError, RecursionError) as error:  # broken JSON, a number of 5000 digits, 1000 nested lists
        return faulty_document(origin, f"broken JSON line ({error}); repair or remove it")
    return _record_document(record, text_field, origin)


def _record_document(record: Any, text_field: str, origin: str) -> Document:
    if not isinstance(record, dict):
        return faulty_document(origin, f"a record must be an object, found {type(record).__name__}")
    if text_field in record:
        return _text_document(record[text_field], text_field, origin)
    fields = shorten(", ".join(record) or "none", LONGEST_LIST, placeholder=" ...")
    return faulty_document(origin, f"no field {text_field!r}; fields found: {fields}. Set data.text_field")


def _text_document(text: Any, text_field: str, origin: str) -> Document:
    if isinstance(text, UnicodeDecodeError):
        return _not_utf8(text, origin)
    if not isinstance(text, str):
        return faulty_document(
            origin, f"field {text_field!r} must be a string, found {type(text).__name__}; set data.text_field"
        )
    try:
        text.encode()  # an eighth of the time of a search for surrogates
    except UnicodeEncodeError:
        return faulty_document(origin, "not UTF-8 (half of an escaped surrogate pair); repair or remove the record")
    return Document(text, origin)


def _not_utf8(error: UnicodeDecodeError, origin: str) -> Document:
    byte = f"byte 0x{error.object[error.start]:02x} at byte offset {error.start}"
    return faulty_document(origin, f"not UTF-8 ({byte}); convert the file to UTF-8")


def _read_plain_text(chunks: Iterable[bytes], name: str, document_rule: DocumentRule) -> Iterator[Document]:
    if document_rule == "file":
        yield _plain_document(b"".join(chunks), name)
        return
    numbered = enumerate(_split_lines(_unify_newlines(chunks)), start=1)
    lines = (_plain_document(line, f"{name}:{number}") for number, line in numbered)
    yield from lines if document_rule == "line" else _join_paragraphs(lines)


def _plain_document(data: bytes, origin: str) -> Document:
    try:
        return Document(data.decode().removeprefix("\ufeff"), origin)
    except UnicodeDecodeError as error:
        return _not_utf8(error, origin)


def _join_paragraphs(lines: Iterable[Document]) -> Iterator[Document]:
    """Join lines up to the next blank line. The first fault of a line is the fault of its paragraph."""
    paragraph: list[Document] = []
    for line in chain(lines, [Document("", "")]):
        if line.fault is not None or line.text.strip():
            paragraph.append(line)
        elif paragraph:
            fault = next((line.fault for line in paragraph if line.fault is not None), None)
            text = "\n".join(line.text for line in paragraph) if fault is None else ""
            yield Document(text, paragraph[0].origin, fault)
            paragraph = []


def _read_parquet(raw: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 1
    try:
        parquet = pq.ParquetFile(raw)
        fields = parquet.schema_arrow.names
        if (columns := fields.count(text_field)) > 1:
            yield faulty_document(
                name, f"{columns} columns are named {text_field!r}; rename all but one, or set data.text_field"
            )
            return
        columns_read = [text_field] if text_field in fields else []
        for batch in parquet.iter_batches(batch_size=PARQUET_ROWS, columns=columns_read):
            yield from read_arrow(batch, fields, text_field, f"{name}:", row)
            row += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the second: the name of a column is not UTF-8
        raise DamagedFileError(error) from error


def _column_values(column: Any) -> Iterable[Any]:
    """Return the values of an Arrow column; a value that is not UTF-8 is replaced by the error."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return map(_scalar_value, column)
    return values


def _scalar_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error
