"""One open file -> its documents, for every file format, streamed in bounded memory."""

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from textwrap import shorten
from typing import Any, BinaryIO, Literal, TypeAlias

from cram.errors import CramError

DocumentRule: TypeAlias = Literal["file", "blank_line", "line"]
OnError: TypeAlias = Literal["stop", "skip"]

COMPRESSIONS = ("", ".zst", ".gz", ".xz", ".bz2")
TEXTS, RECORDS = (".txt", ".text", ".md"), (".jsonl", ".json", ".ndjson")
SUPPORTED = f"{', '.join((*TEXTS, *RECORDS))}, each also with {', '.join(COMPRESSIONS[1:])}, and .parquet"
EXTENSIONS = (*(kind + packed for kind in (*TEXTS, *RECORDS) for packed in COMPRESSIONS), ".parquet")
BOM = b"\xef\xbb\xbf"  # which editors on Windows write before UTF-8
CHUNK_BYTES = 1 << 16  # a read from the disk; text decompresses about 4-fold, so pieces stay small
PARQUET_ROWS = 512
LONGEST_LIST = 200  # characters of a message


@dataclass(frozen=True)
class Document:
    """A text and where it came from, such as `books/a.jsonl.zst:17`, for messages.

    What cannot be read keeps its place: its text is empty, and `fault` says where and what is wrong, and what to do.
    """

    text: str
    origin: str
    fault: str | None = None


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def fault(origin: str, what: str) -> Document:
    """What stands in the place of something at `origin` that cannot be read; `what` is wrong and to be done."""
    return Document("", origin, f"{origin}: {what}")


class _DamagedFile(Exception):
    """The file cannot be read any further."""


def read_documents(
    raw: BinaryIO, name: str, text_field: str, document: DocumentRule, on_error: OnError = "stop"
) -> Iterator[Document]:
    """The documents of an open file whose `name` ends in one of `EXTENSIONS`, in lower or upper case.

    `document` says what one document is in a .txt file; records hold theirs in `text_field`. With `on_error` "skip" a
    record without text, or whose text is not UTF-8, is a document with a fault, and so is the place from which on a
    file is damaged. Every reading of a file gives the same sequence, faults included.

    Raises CramError, naming the file and line, at the first fault if `on_error` is "stop".
    """
    return checked(_until_damage(raw, name, text_field, document), on_error)


def checked(documents: Iterable[Document], on_error: OnError) -> Iterator[Document]:
    """The documents as they come; CramError at the first fault if `on_error` is "stop"."""
    for document in documents:
        if document.fault is not None and on_error == "stop":
            raise stopped(document.fault)
        yield document


def stopped(fault: str) -> CramError:
    """What to tell the user where a fault is not to be skipped."""
    return CramError(f"{fault}\nor set data.on_error=skip, which leaves such records and files out")


def batch_documents(batch: Any, fields: Sequence[str], text_field: str, where: str, first: int) -> Iterator[Document]:
    """A document, or a fault, for each record of an Arrow record batch or table.

    `fields` are those of the records; of them the batch need hold `text_field` alone. The origins are `where` and a
    number, that of the first record being `first`.
    """
    origins = (f"{where}{number}" for number in range(first, first + batch.num_rows))
    if text_field in fields:
        for text, origin in zip(_values(batch.column(text_field)), origins, strict=True):
            yield _text_document(text, text_field, origin)
    else:
        for origin in origins:
            yield _record_document(dict.fromkeys(fields), text_field, origin)


def _until_damage(raw: BinaryIO, name: str, text_field: str, document: DocumentRule) -> Iterator[Document]:
    kind, packing = _kind(name)
    try:
        if kind == ".parquet":
            yield from _parquet(raw, name, text_field)
        elif kind in TEXTS:
            yield from _plain(_chunks(raw, packing), name, document)
        else:
            yield from _json_lines(_chunks(raw, packing), name, text_field)
    except (_DamagedFile, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield fault(name, f"damaged or not readable ({reason}); replace the file or leave it out")


def _kind(name: str) -> tuple[str, str]:
    """The extension of the content and that of the compression, "" for none, of a file name in `EXTENSIONS`."""
    lowered = name.lower()
    packing = next((end for end in COMPRESSIONS if end and lowered.endswith(end)), "")
    bare = lowered.removesuffix(packing)
    return bare[bare.rindex(".") :], packing


def _chunks(raw: BinaryIO, packing: str) -> Iterator[bytes]:
    if packing == ".zst":
        yield from _zstandard(raw)
    elif packing == ".xz":
        yield from _streams(raw, lzma.LZMADecompressor)
    elif packing == ".bz2":
        yield from _streams(raw, bz2.BZ2Decompressor)
    else:
        with gzip.open(raw) if packing else nullcontext(raw) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk


def _streams(raw: BinaryIO, new: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> Iterator[bytes]:
    """Stream by stream: the library's own reader ends at the first bytes behind a stream that begin no other one.

    These may be the zeros that an .xz file is padded with, and more streams may follow. Zeros before the first stream
    pad nothing: they are what a disk leaves in place of data that was never written.
    """
    decompressor = None
    rest, begun = b"", False
    while piece := rest or raw.read(CHUNK_BYTES):
        rest = b""
        if not begun and piece.startswith(b"\0"):
            raise _DamagedFile("it begins with zero bytes")
        begun = True
        if decompressor is None:
            piece = piece.lstrip(b"\0")
            if not piece:
                continue
            decompressor = new()
        yield decompressor.decompress(piece, CHUNK_BYTES)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", CHUNK_BYTES)
        if decompressor.eof:
            rest, decompressor = decompressor.unused_data, None
    if decompressor is not None:
        raise _DamagedFile("truncated: it ends in mid-stream")


def _zstandard(raw: BinaryIO) -> Iterator[bytes]:
    """Frame by frame: the library's own stream reader takes a truncated file for a complete one."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    frame = decompressor.decompressobj()
    rest, complete = b"", True
    try:
        while piece := rest or raw.read(CHUNK_BYTES):
            yield frame.decompress(piece)
            rest, complete = frame.unused_data, frame.eof
            if complete:
                frame = decompressor.decompressobj()
    except zstandard.ZstdError as error:
        raise _DamagedFile(error) from error
    if not complete:
        raise _DamagedFile("truncated: it ends in mid-frame")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pieces: list[bytes] = []  # of a line that goes through many chunks: joined once, not at each
    for chunk in chunks:
        first, *lines = chunk.split(b"\n")
        pieces.append(first)
        if lines:
            yield b"".join(pieces)
            yield from lines[:-1]
            pieces = lines[-1:]
    if rest := b"".join(pieces):
        yield rest


def _newlines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks with every end of a line as a line feed: of Windows, and of old Macs, a carriage return alone."""
    held = b""  # a carriage return at the end of a chunk, whose line feed may begin the next one
    for chunk in chunks:
        whole = held + chunk
        held = b"\r" if whole.endswith(b"\r") else b""
        yield whole.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _json_lines(chunks: Iterable[bytes], name: str, text_field: str) -> Iterator[Document]:
    for number, line in enumerate(_lines(chunks), start=1):
        if record := (line.removeprefix(BOM) if number == 1 else line).strip():
            yield _json_document(record, text_field, f"{name}:{number}")


def _json_document(line: bytes, text_field: str, origin: str) -> Document:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _not_utf8(error, origin)
    except (ValueError, RecursionError) as error:  # broken JSON, a number of 5000 digits, 1000 nested lists
        return fault(origin, f"broken JSON line ({error}); repair or remove it")
    return _record_document(record, text_field, origin)


def _record_document(record: Any, text_field: str, origin: str) -> Document:
    if not isinstance(record, dict):
        return fault(origin, f"a record must be an object, found {type(record).__name__}")
    if text_field in record:
        return _text_document(record[text_field], text_field, origin)
    found = shorten(", ".join(record) or "none", LONGEST_LIST, placeholder=" ...")
    return fault(origin, f"no field {text_field!r}; fields found: {found}. Set data.text_field")


def _text_document(text: Any, text_field: str, origin: str) -> Document:
    if isinstance(text, UnicodeDecodeError):
        return _not_utf8(text, origin)
    if not isinstance(text, str):
        found = type(text).__name__
        return fault(origin, f"field {text_field!r} must be a string, found {found}; set data.text_field")
    try:
        text.encode()  # an eighth of the time of a search for surrogates
    except UnicodeEncodeError:
        return fault(origin, "not UTF-8 (half of an escaped surrogate pair); repair or remove the record")
    return Document(text, origin)


def _not_utf8(error: UnicodeDecodeError, origin: str) -> Document:
    where = f"byte 0x{error.object[error.start]:02x} at byte offset {error.start}"
    return fault(origin, f"not UTF-8 ({where}); convert the file to UTF-8")


def _plain(chunks: Iterable[bytes], name: str, document: DocumentRule) -> Iterator[Document]:
    if document == "file":
        yield _plain_document(b"".join(chunks), name)
        return
    lines = (_plain_document(line, f"{name}:{n}") for n, line in enumerate(_lines(_newlines(chunks)), start=1))
    yield from lines if document == "line" else _paragraphs(lines)


def _plain_document(data: bytes, origin: str) -> Document:
    try:
        return Document(data.decode().removeprefix("\ufeff"), origin)
    except UnicodeDecodeError as error:
        return _not_utf8(error, origin)


def _paragraphs(lines: Iterable[Document]) -> Iterator[Document]:
    """Lines joined up to the next blank one; a fault in one of them is that of the paragraph."""
    paragraph: list[Document] = []
    for line in chain(lines, [Document("", "")]):
        if line.fault is not None or line.text.strip():
            paragraph.append(line)
        elif paragraph:
            faults = (line.fault for line in paragraph if line.fault is not None)
            broken, origin = next(faults, None), paragraph[0].origin
            yield Document("\n".join(line.text for line in paragraph) if broken is None else "", origin, broken)
            paragraph = []


def _parquet(raw: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 1
    try:
        table = pq.ParquetFile(raw)
        fields = table.schema_arrow.names
        if (columns := fields.count(text_field)) > 1:
            yield fault(name, f"{columns} columns are named {text_field!r}; rename all but one, or set data.text_field")
            return
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[text_field] if text_field in fields else []):
            yield from batch_documents(batch, fields, text_field, f"{name}:", row)
            row += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the second, of the name of a column
        raise _DamagedFile(error) from error


def _values(column: Any) -> Iterable[Any]:
    """The values of an Arrow column; in place of one that is not UTF-8, the error."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return map(_value, column)


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error
