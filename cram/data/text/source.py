"""The contract of a source of text, and what all kinds of sources share.

To add a kind of source: write a subclass of `Source` whose parts are subclasses of `SourcePart`, in a file of its own,
and name it in `sources.open_source`.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from cram.data.text.document import Document, OnError, fault_error
from cram.data.text.paths import open_file

UNREADABLE = bytes(32)  # stands for the digest of a file that cannot be read


class SourcePart(ABC):
    """One file, package or shard of a source, which is always read from its start.

    Parts are read one at a time, because reading one may take 128 MiB (a zstandard window) and a corpus may have
    hundreds of them. A part holds no state of its readers, so it may be read again, also while it is being read.

    Attributes:
        name: for messages and for the manifest.
        size: bytes on the disk (compressed bytes of a compressed file); 0 if unknown.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    @abstractmethod
    def read(self) -> Iterator[tuple[Document, int]]:
        """Yield each document and how many of the part's `size` bytes were read up to it.

        The documents are streamed, and every reading yields the same ones in the same order. A part whose `size` is
        unknown yields 0 as the number of bytes.

        Raises:
            CramError: at something that cannot be read. A source that was opened with `on_error="skip"` yields a
                document with a fault in its place.
        """

    def documents(self) -> Iterator[Document]:
        """Yield the documents that `read` yields, alone."""
        return (document for document, _ in self.read())


class Source(ABC):
    """Text to train on, in parts."""

    @property
    @abstractmethod
    def parts(self) -> list[SourcePart]:
        """The parts, always in the same order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a sha256 in hex that changes whenever the content of the source changes."""


def hash_content(heading: str, files: Iterable[tuple[str, Path]], on_error: OnError = "stop") -> str:
    """Return a sha256 in hex over `heading` and the names and contents of files, whatever their order.

    With `on_error` "skip", a file that cannot be read is hashed as unreadable.

    Raises:
        CramError: for a file that cannot be read, if `on_error` is "stop".
    """
    total = hashlib.sha256(heading.encode())
    for name, digest in sorted((os.fsencode(name), _file_digest(path, on_error)) for name, path in files):
        total.update(len(name).to_bytes(4, "little") + name + digest)
    return total.hexdigest()


def _file_digest(path: Path, on_error: OnError) -> bytes:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        if on_error == "skip":
            return UNREADABLE
        raise fault_error(f"{path}: cannot be read ({error.strerror}); make it readable or leave it out") from error
