"""One open file -> its documents, for every file format, streamed in bounded memory."""

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, TypeAlias

from cram.errors import CramError

DocumentRule: TypeAlias = Literal["file", "blank_line", "line"]

EXTENSIONS = (".txt", ".jsonl", ".jsonl.zst", ".jsonl.gz", ".jsonl.xz", ".parquet")
CHUNK_BYTES = 1 << 16  # a read from the disk; text decompresses about 4-fold, so pieces stay small
PARQUET_ROWS = 512

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """A text and where it came from, such as `books/a.jsonl.zst:17`, for messages."""

    text: str
    origin: str


def read_documents(raw: BinaryIO, name: str, text_field: str, document: DocumentRule) -> Iterator[Document]:
    """The documents of an open file whose `name` ends in one of `EXTENSIONS`.

    `document` says what one document is in a .txt file; records hold theirs in `text_field`.
    Raises CramError, naming the file and line, for damaged files, records without text and text that is not UTF-8.
    """
    try:
        if name.endswith(".parquet"):
            yield from _parquet(raw, name, text_field)
        elif name.endswith(".txt"):
            yield from _plain(_chunks(raw, name), name, document)
        else:
            yield from _json_lines(_chunks(raw, name), name, text_field)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise CramError(f"{name}: damaged or not readable ({error}); replace the file or leave it out") from error


def text_of(record: Any, text_field: str, origin: str) -> Document:
    """The document of one record (a mapping); CramError at `origin` where it has no text in `text_field`."""
    if not isinstance(record, dict):
        raise CramError(f"{origin}: a record must be an object, found {type(record).__name__}")
    if text_field not in record:
        found = ", ".join(map(str, record)) or "none"
        raise CramError(f"{origin}: no field {text_field!r}; fields found: {found}. Set data.text_field")
    text = record[text_field]
    if not isinstance(text, str):
        raise CramError(
            f"{origin}: field {text_field!r} must be a string, found {type(text).__name__}; set data.text_field"
        )
    if _SURROGATE.search(text):
        raise CramError(f"{origin}: not UTF-8 (half of an escaped surrogate pair); repair or remove the record")
    return Document(text, origin)


def _chunks(raw: BinaryIO, name: str) -> Iterator[bytes]:
    if name.endswith(".zst"):
        yield from _zstandard(raw, name)
        return
    openers: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".xz": lzma.open}
    opener = openers.get(name[-3:], nullcontext)
    with opener(raw) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _zstandard(raw: BinaryIO, name: str) -> Iterator[bytes]:
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
        raise CramError(f"{name}: damaged zstd file ({error}); replace the file or leave it out") from error
    if not complete:
        raise CramError(f"{name}: zstd file ends in mid-frame (truncated); replace the file or leave it out")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _decode(data: bytes, origin: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise CramError(
            f"{origin}: not UTF-8 (byte 0x{byte:02x} at byte offset {error.start}); convert the file to UTF-8"
        ) from error


def _json_lines(chunks: Iterable[bytes], name: str, text_field: str) -> Iterator[Document]:
    for number, line in enumerate(_lines(chunks), start=1):
        if not line.strip():
            continue
        origin = f"{name}:{number}"
        try:
            record = json.loads(_decode(line, origin))
        except json.JSONDecodeError as error:
            raise CramError(f"{origin}: broken JSON line ({error}); repair or remove it") from error
        yield text_of(record, text_field, origin)


def _plain(chunks: Iterable[bytes], name: str, document: DocumentRule) -> Iterator[Document]:
    if document == "file":
        yield Document(_decode(b"".join(chunks), name).removeprefix("\ufeff"), name)
        return
    paragraph: list[str] = []
    number = 0
    for number, line in enumerate(_lines(chunks), start=1):
        text = _decode(line, f"{name}:{number}").removeprefix("\ufeff").rstrip("\r")
        if document == "line":
            yield Document(text, f"{name}:{number}")
        elif text.strip():
            paragraph.append(text)
        elif paragraph:
            yield Document("\n".join(paragraph), f"{name}:{number - len(paragraph)}")
            paragraph = []
    if paragraph:
        yield Document("\n".join(paragraph), f"{name}:{number - len(paragraph) + 1}")


def _parquet(raw: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        table = pq.ParquetFile(raw)
        columns = [text_field] if text_field in table.schema_arrow.names else None
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
            for record in batch.to_pylist():
                row += 1
                yield text_of(record, text_field, f"{name}:{row}")
    except UnicodeDecodeError as error:
        where = f"one of the {PARQUET_ROWS} records from {row + 1} on"
        raise CramError(f"{name}: not UTF-8 ({where}: {error.reason}); convert the text to UTF-8") from error
    except pa.ArrowException as error:
        raise CramError(f"{name}: damaged parquet file ({error}); replace the file or leave it out") from error
