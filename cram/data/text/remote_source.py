"""Files behind an address as a source: one file, the files of a folder, or those that match a glob."""

import hashlib
import os
from collections.abc import Iterator

from cram.data.text.document import Document
from cram.data.text.formats import EXTENSIONS, SUPPORTED, read_documents
from cram.data.text.options import ReadingOptions
from cram.data.text.remote import BrokenOffError, RemoteFile, list_remote, open_remote
from cram.data.text.source import Source, SourcePart
from cram.errors import CramError

CHUNK_BYTES = 1 << 20
LOCAL = "file://"


class RemotePart(SourcePart):
    """A file of a store. It is cheap to pickle: the file is opened when it is read.

    Args:
        file: the file.
        options: how it is read.
        name: of the part; None is the address.
    """

    def __init__(self, file: RemoteFile, options: ReadingOptions, name: str | None = None) -> None:
        super().__init__(name or file.address, file.size)
        self.is_remote = True
        self._file = file
        self._options = options

    @property
    def identity(self) -> str:
        """The address; of a file of this machine the path without links, as that of a `FilePart`."""
        address = self._file.address
        return os.path.realpath(address.removeprefix(LOCAL)) if address.startswith(LOCAL) else address

    def read(self) -> Iterator[tuple[Document, int]]:
        """Yield the documents of the file, each with how many bytes of the file were read up to it.

        Raises:
            CramError: if the file cannot be opened or the connection breaks off, also with `on_error` "skip": going on
                without the rest would silently leave out as much text as the network happens to lose.
        """
        number = 0
        try:
            with open_remote(self._file.address) as raw:
                for document in read_documents(raw, self.name, self._options, self._file.file_name):
                    number += 1
                    yield document, raw.tell() if self.size else 0
        except BrokenOffError as error:
            raise CramError(
                f"{self.name} breaks off after document {number} ({error})\n"
                "run the same command again to continue; if the file breaks off there again, check the store."
            ) from error


class RemoteSource(Source):
    """The files that an address names, in the order of their names.

    Raises:
        CramError: if no file matches, the extension of a file is not supported, or the store cannot be reached.
    """

    def __init__(self, address: str, options: ReadingOptions) -> None:
        self._files = list_remote(address, EXTENSIONS)
        if not self._files:
            raise CramError(f"data.source={address!r} matches no file; give a file, a folder or a glob of files.")
        for file in self._files:
            if not file.file_name.lower().endswith(EXTENSIONS):
                raise CramError(
                    f"data.source={address!r}: {file.address} has no supported extension; supported: {SUPPORTED}"
                )
        self._parts: list[SourcePart] = [RemotePart(file, options) for file in self._files]

    @property
    def parts(self) -> list[SourcePart]:
        """A part for each file."""
        return self._parts

    def fingerprint(self) -> str:
        """Return a sha256 over the files' names and sizes, and what the store says of their contents.

        That is a checksum, or the time of the last change where the store has no checksum. Only where it has neither,
        as some web servers, the contents are read.
        """
        total = hashlib.sha256(b"remote")
        for file in self._files:
            content = file.checksum or _digest(file)
            total.update(f"\n{file.file_name!r} {file.size} {content}".encode())
        return total.hexdigest()


def _digest(file: RemoteFile) -> str:
    digest = hashlib.sha256()
    try:
        with open_remote(file.address) as raw:
            while chunk := raw.read(CHUNK_BYTES):
                digest.update(chunk)
    except BrokenOffError as error:
        raise CramError(f"{file.address} breaks off ({error})\nrun the same command again.") from error
    return digest.hexdigest()
