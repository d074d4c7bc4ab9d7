"""A file of plain text -> its documents."""

from collections.abc import Iterable, Iterator
from itertools import chain

from cram.data.text.document import Document, faulty_document
from cram.data.text.encodings import TextEncoding
from cram.data.text.lines import split_lines, unify_newlines
from cram.data.text.options import DocumentRule


def read_plain_text(
    chunks: Iterable[bytes], name: str, document_rule: DocumentRule, encoding: TextEncoding
) -> Iterator[Document]:
    """Yield the documents of a file of plain text.

    Args:
        chunks: of the decompressed file, as `encoding.convert` returns them.
        name: of the file.
        document_rule: what one document is.
        encoding: decodes a line or the file.
    """
    if document_rule == "file":
        yield _plain_document(b"".join(chunks), name, encoding)
        return
    numbered = enumerate(split_lines(unify_newlines(chunks)), start=1)
    lines = (_plain_document(line, f"{name}:{number}", encoding) for number, line in numbered)
    yield from lines if document_rule == "line" else _join_paragraphs(lines)


def _plain_document(data: bytes, origin: str, encoding: TextEncoding) -> Document:
    try:
        return Document(encoding.decode(data).removeprefix("\ufeff"), origin)
    except UnicodeDecodeError as error:
        return faulty_document(origin, encoding.describe_error(error))


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
