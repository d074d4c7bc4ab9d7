"""A document as it is read: its text, where the text came from, and where it lies in its source."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from cram.errors import CramError

OnError: TypeAlias = Literal["stop", "skip"]


@dataclass(frozen=True)
class Document:
    """A text and its origin.

    Attributes:
        text: the text as it was read; empty if it could not be read.
        origin: the file and the line or row, such as `books/a.jsonl.zst:17`, for messages.
        fault: None, or one line that says what could not be read and what to do about it. A document with a fault
            stands in the place of the record or file that could not be read.
    """

    text: str
    origin: str
    fault: str | None = None

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but white space, as in a document with a fault."""
        return not self.text or self.text.isspace()


class Location(NamedTuple):
    """Where a document lies in its source. Locations compare in the order of the source.

    part: index of the part in `Source.parts`. record: index of the document in the part; documents with a fault count.
    """

    part: int
    record: int


class LocatedDocument(NamedTuple):
    """A document and where it lies in its source."""

    location: Location
    document: Document


def byte_size(text: str) -> int:
    """Count the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def faulty_document(origin: str, problem: str) -> Document:
    """Make the document that stands for something at `origin` that cannot be read.

    `problem` says in one line what is wrong and what to do.
    """
    return Document("", origin, f"{origin}: {problem}")


def stop_at_fault(documents: Iterable[Document], on_error: OnError) -> Iterator[Document]:
    """Yield the documents as they come.

    Raises:
        CramError: at the first document with a fault, if `on_error` is "stop".
    """
    for document in documents:
        if document.fault is not None and on_error == "stop":
            raise fault_error(document.fault)
        yield document


def fault_error(fault: str) -> CramError:
    """Make the error for a fault that must not be skipped."""
    return CramError(f"{fault}\nor set data.on_error=skip, which leaves such records and files out.")
