"""The contract of a source of text, and what all kinds of sources share.

To add a kind of source: write a subclass of `Source` whose parts are subclasses of `SourcePart`, in a file of its own,
and name it in `sources.open_source`.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
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
        is_remote: whether it is read over a network.
    """

    is_remote = False

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

    @property
    def identity(self) -> str:
        """What is the same for two parts with the same content, such as a file that two sources name."""
        return self.name

    def documents(self) -> Iterator[Document]:
        """Yield the documents that `read` yields, alone."""
        return (document for document, _ in self.read())


@dataclass(frozen=True)
class StatedSize:
    """What the publisher of a data set says about its size.

    Attributes:
        documents: how many there are.
        download_bytes: that come over the network when it is read once; 0 for a local copy, None if unknown.
    """

    documents: int
    download_bytes: float | None


@dataclass(frozen=True)
class PartGroup:
    """Parts of a source that together give a share of the training tokens.

    Attributes:
        name: of the sources that the parts belong to, for messages.
        share: of the training tokens; the shares of all groups sum to 1.
        parts: their indices in `Source.parts`.
        bytes_per_token: bytes of the group's text for each training token; None if they were not measured.
    """

    name: str
    share: float
    parts: Sequence[int]
    bytes_per_token: float | None = None


@dataclass(frozen=True)
class Member:
    """One of the sources in a list.

    Attributes:
        name: its words in `data.source`.
        weight: the share of the training tokens that was asked for; None if none was.
        parts: the indices of its parts in `Source.parts` of the list.
    """

    name: str
    weight: float | None
    parts: range


class Source(ABC):
    """Text to train on, in parts."""

    _bytes_per_token: Sequence[float] = ()

    @property
    @abstractmethod
    def parts(self) -> list[SourcePart]:
        """The parts, always in the same order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a sha256 in hex that changes whenever the content of the source changes."""

    @property
    def reachable(self) -> bool:
        """Whether the fingerprint covers the content, which it does not while the Hub cannot be reached."""
        return True

    @property
    def stated_size(self) -> StatedSize | None:
        """What the publisher of a data set says about its size; None where the parts tell it, or nobody does."""
        return None

    @property
    def members(self) -> list[Member]:
        """The sources of a list; empty for a single source."""
        return []

    @property
    def groups(self) -> list[PartGroup]:
        """The groups of parts with shares of the training tokens; a single one if no shares were asked for."""
        groups = self._make_groups()
        if not self._bytes_per_token:
            return groups
        return [replace(one, bytes_per_token=b) for one, b in zip(groups, self._bytes_per_token, strict=True)]

    def balanced(self, bytes_per_token: list[float]) -> "Source":
        """Return the same source, whose groups are known to have these bytes for each training token."""
        source = copy(self)
        source._bytes_per_token = bytes_per_token
        return source

    def _make_groups(self) -> list[PartGroup]:
        return [PartGroup("data.source", 1.0, range(len(self.parts)))]


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
