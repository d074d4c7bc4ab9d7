"""One open file -> its documents, for every file format, streamed in bounded memory.

Nothing that a file holds raises an exception here: a record that cannot be read becomes a document with a fault, and
so does the place from which on a file is damaged.

To add a format: write a function that yields its documents, in a file of its own, and name it in `_read_content`.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from cram.data.text.arrow_files import read_arrow_file, read_parquet
from cram.data.text.decompression import COMPRESSIONS, READ_ERRORS, read_chunks
from cram.data.text.delimited import read_delimited
from cram.data.text.document import Document, faulty_document, stop_at_fault
from cram.data.text.encodings import TextEncoding
from cram.data.text.json_files import read_json, read_json_lines
from cram.data.text.options import ReadingOptions
from cram.data.text.plain_text import read_plain_text

TEXT_EXTENSIONS = (".txt", ".text", ".md")
JSON_EXTENSIONS = (".jsonl", ".json", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
STREAMED = (*TEXT_EXTENSIONS, *JSON_EXTENSIONS, *DELIMITERS)  # read from their start to their end; may be compressed
COLUMNAR = (".parquet", ".arrow")  # read here and there
EXTENSIONS = (*(kind + compression for kind in STREAMED for compression in COMPRESSIONS), *COLUMNAR)
SUPPORTED = f"{', '.join(STREAMED)}, each also with {', '.join(COMPRESSIONS[1:])}, and {' and '.join(COLUMNAR)}"


def read_documents(
    raw: BinaryIO, name: str, options: ReadingOptions, file_name: str | None = None
) -> Iterator[Document]:
    """Yield the documents of an open file. Every reading of a file gives the same sequence, faults included.

    Args:
        raw: the file, opened for reading bytes.
        name: name of the file, for messages.
        options: what a document is, and whether a fault is raised.
        file_name: ends in one of `EXTENSIONS`, in lower or upper case; None is `name`.

    Raises:
        CramError: at the first fault, if `options.on_error` is "stop". The message names the file and line.
    """
    return stop_at_fault(_read_until_damage(raw, name, options, file_name or name), options.on_error)


def _read_until_damage(raw: BinaryIO, name: str, options: ReadingOptions, file_name: str) -> Iterator[Document]:
    extension, compression = _split_extensions(file_name)
    try:
        if extension == ".parquet":
            yield from read_parquet(raw, name, options.text_field)
        elif extension == ".arrow":
            yield from read_arrow_file(raw, name, options.text_field)
        else:
            yield from _read_content(read_chunks(raw, compression), name, extension, options)
    except READ_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield faulty_document(name, f"damaged or not readable ({reason}); replace the file or leave it out")


def _read_content(chunks: Iterable[bytes], name: str, extension: str, options: ReadingOptions) -> Iterator[Document]:
    encoding = TextEncoding(options.encoding)
    content = encoding.convert(chunks)
    if extension in TEXT_EXTENSIONS:
        return read_plain_text(content, name, options.document, encoding)
    if extension in DELIMITERS:
        return read_delimited(content, name, options.text_field, DELIMITERS[extension], encoding)
    read = read_json if extension == ".json" else read_json_lines
    return read(content, name, options.text_field, encoding)


def _split_extensions(name: str) -> tuple[str, str]:
    """Return the extension of the content and that of the compression ("" for none) of a file name."""
    lowered = name.lower()
    compression = next((ending for ending in COMPRESSIONS if ending and lowered.endswith(ending)), "")
    bare = lowered.removesuffix(compression)
    return bare[bare.rindex(".") :], compression
