"""Text files in every format, for tests."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import zstandard

from cram.data.text.document import Document, OnError
from cram.data.text.formats import read_documents
from cram.data.text.options import DocumentRule, ReadingOptions

TEXTS = ["First text.", "Zweiter Text, größer.", "third\nwith a line break", "x" * 300_000]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.compress(data[: len(data) // 2]) + zstandard.compress(data[len(data) // 2 :]),
}


def read(
    path: Path,
    text_field: str = "text",
    document_rule: DocumentRule = "file",
    on_error: OnError = "stop",
    encoding: str = "utf-8",
) -> list[Document]:
    with path.open("rb") as raw:
        return list(read_documents(raw, path.name, ReadingOptions(text_field, document_rule, on_error, encoding)))


def json_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
