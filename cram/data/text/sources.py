"""`data.source` -> parts (a file, a package or a shard each) that yield documents.

Parts are read one at a time: a zstd window may take 128 MiB, and a corpus has hundreds of files.
"""

import hashlib
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cram.data.text import pydocs
from cram.data.text.formats import (
    EXTENSIONS,
    SUPPORTED,
    Document,
    DocumentRule,
    OnError,
    batch_documents,
    checked,
    fault,
    read_documents,
    stopped,
)
from cram.data.text.paths import matching_files, open_file
from cram.errors import CramError

__all__ = ["Document", "Part", "Source", "open_source"]

HUB_SECONDS = 5.0
HUB_RECORDS = 256  # of a stream that are turned into text at once
UNREADABLE = bytes(32)  # in place of the digest of a file that cannot be read


class Part(ABC):
    """A piece of a source that is read from its start: `size` bytes, `position` of them read so far.

    Both count what lies on the disk (compressed bytes of a compressed file); 0 where that is unknown.
    """

    def __init__(self, name: str, size: int):
        self.name = name
        self.size = size
        self.position = 0

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """The documents in order, streamed, the same whenever they are read.

        What is at fault is a CramError, or a document with a fault if the source was opened to skip errors.
        """


class Source(ABC):
    """Where the text comes from."""

    @property
    @abstractmethod
    def parts(self) -> list[Part]:
        """The parts in a fixed order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A sha256 in hex that changes when the content does."""


def open_source(
    spec: str, text_field: str = "text", document: DocumentRule = "file", on_error: OnError = "stop"
) -> Source:
    """The source that `data.source` names: a glob of files, `hf:NAME[:CONFIG[:SPLIT]]` or `pydocs`.

    With `on_error` "skip" the parts yield a document with a fault in place of a record or file that cannot be read.
    Raises CramError when nothing matches, a file's extension is not supported, or the name is malformed.
    Content is read later, by the parts.
    """
    if spec == "pydocs":
        return PydocsSource(on_error)
    if spec.startswith("hf:"):
        return HubSource(spec, text_field, on_error)
    return FileSource(spec, text_field, document, on_error)


class FilePart(Part):
    """A file."""

    def __init__(self, path: Path, text_field: str, document: DocumentRule, on_error: OnError):
        # A name that is not UTF-8 has its bytes escaped in messages and in the manifest.
        super().__init__(os.fsencode(path).decode(errors="backslashreplace"), _size(path))
        self._path = path
        self._text_field = text_field
        self._document: DocumentRule = document
        self._on_error: OnError = on_error

    def documents(self) -> Iterator[Document]:
        """The documents of the file, streamed."""
        self.position = 0
        try:
            with open_file(self._path) as raw:
                for document in read_documents(raw, self.name, self._text_field, self._document, self._on_error):
                    self.position = raw.tell()
                    yield document
        except OSError as error:
            what = f"cannot be read ({error.strerror}); make it readable or leave it out"
            yield from checked([fault(self.name, what)], self._on_error)
        self.position = self.size


class FileSource(Source):
    """A file, the files of a folder, or those that match a glob, in the order of their names."""

    def __init__(self, pattern: str, text_field: str, document: DocumentRule, on_error: OnError):
        # What cannot be read, such as a link to a disk that is not there, is for its part to report.
        paths = matching_files(pattern, EXTENSIONS)
        if not paths:
            raise CramError(
                f"data.source={pattern!r} matches no file (in {Path.cwd()}); "
                "give a file, a folder, a glob of files, hf:NAME[:CONFIG[:SPLIT]] or pydocs"
            )
        for path in paths:
            if not path.name.lower().endswith(EXTENSIONS):
                raise CramError(f"data.source={pattern!r}: {path} has no supported extension; supported: {SUPPORTED}")
        self._paths = paths
        self._on_error: OnError = on_error
        self._parts: list[Part] = [FilePart(path, text_field, document, on_error) for path in paths]

    @property
    def parts(self) -> list[Part]:
        """A part for each file."""
        return self._parts

    def fingerprint(self) -> str:
        """sha256 over the files' names and contents; the folders they lie in do not matter."""
        return content_hash("files", [(path.name, path) for path in self._paths], self._on_error)


class PydocsPart(Part):
    """The prose of one package of the Python installation."""

    def __init__(self, name: str, documents: list[Document], on_error: OnError):
        super().__init__(name, sum(len(document.text) for document in documents))
        self._documents = documents
        self._on_error: OnError = on_error

    def documents(self) -> Iterator[Document]:
        """A document for each module and documentation file."""
        self.position = 0
        for document in checked(self._documents, self._on_error):
            self.position += len(document.text)
            yield document


class PydocsSource(Source):
    """The English prose in the documentation of the running Python and its packages."""

    def __init__(self, on_error: OnError) -> None:
        self._files = pydocs.documentation_files()
        self._on_error: OnError = on_error
        self._parts: list[Part] = []

    @property
    def parts(self) -> list[Part]:
        """A part for each package, made at the first call and kept: about 10 MB that take seconds to clean."""
        if not self._parts:
            packages = pydocs.prose(self._files)
            self._parts = [PydocsPart(name, documents, self._on_error) for name, documents in packages.items()]
        return self._parts

    def fingerprint(self) -> str:
        """sha256 over the Python version, the files' names and contents, and the code that cleans them."""
        cleaner = ("", Path(pydocs.__file__))
        return content_hash(f"pydocs {platform.python_version()}", [cleaner, *self._files], self._on_error)


class HubSource(Source):
    """A Hugging Face data set, streamed; NAME may also be a local folder. Loaded when its parts are asked for."""

    def __init__(self, spec: str, text_field: str, on_error: OnError):
        name, *rest = spec.removeprefix("hf:").split(":")
        if not name or len(rest) > 2 or not spec.isprintable():  # such as bytes that are not UTF-8
            raise CramError(f"data.source={spec!r}: expected hf:NAME[:CONFIG[:SPLIT]]")
        self._spec = spec
        self._name = name
        self._config = (rest[0] if rest else "") or None
        self._split = (rest[1] if len(rest) == 2 else "") or "train"
        self._text_field = text_field
        self._on_error: OnError = on_error

    @cached_property
    def parts(self) -> list[Part]:
        """A part for each shard, as the data set was uploaded; CramError when it cannot be loaded."""
        import datasets

        revision = self.revision
        try:
            stream = datasets.load_dataset(
                self._name, self._config, split=self._split, streaming=True, revision=revision
            ).with_format("arrow")  # several times quicker than a mapping for each record
        except Exception as error:  # each loader raises what the library beneath it does
            raise self._refused(error) from error
        shards: int = stream.num_shards
        return [HubPart(self._spec, stream, index, shards, self._text_field, self._on_error) for index in range(shards)]

    def fingerprint(self) -> str:
        """sha256 over name, configuration, split and the revision (a local folder's contents), if it can be asked."""
        folder = Path(self._name)
        heading = f"hf {folder.name if folder.is_dir() else self._name} {self._config} {self._split}"
        if folder.is_dir():
            try:
                files = [(str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file()]
            except OSError as error:
                raise self._refused(error) from error
            return content_hash(heading, files, self._on_error)
        return content_hash(f"{heading} {self.revision if self.reachable else None}", [], self._on_error)

    @cached_property
    def reachable(self) -> bool:
        """Whether its revision is known: always of a local folder, of others if the Hub can be asked."""
        try:
            return self.revision is not None or Path(self._name).is_dir()
        except CramError:
            return False

    @cached_property
    def revision(self) -> str | None:
        """The commit of the data set on the Hub (None for a local folder); CramError when it cannot be asked."""
        if Path(self._name).is_dir():
            return None
        from huggingface_hub import HfApi

        # Asked before `datasets` is: without a network that one retries for half a minute.
        try:
            return HfApi().dataset_info(self._name, timeout=HUB_SECONDS).sha
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> CramError:
        return CramError(
            f"data.source={self._spec!r} cannot be loaded ({_reason(error)})\n"
            "check the name, configuration and split, and the network; or give local files"
        )


class HubPart(Part):
    """A shard of a streamed Hugging Face data set; its size is not known."""

    def __init__(self, spec: str, stream: Any, index: int, shards: int, text_field: str, on_error: OnError):
        super().__init__(f"{spec} shard {index + 1}/{shards}", 0)
        self._stream = stream
        self._index = index
        self._shards = shards
        self._text_field = text_field
        self._on_error: OnError = on_error

    def documents(self) -> Iterator[Document]:
        """The records' texts in the order of the shard; CramError when the stream breaks off, also with "skip"."""
        record = 1
        try:
            shard = self._stream.shard(num_shards=self._shards, index=self._index)
            for table in shard.iter(batch_size=HUB_RECORDS):
                found = batch_documents(table, table.column_names, self._text_field, f"{self.name} record ", record)
                yield from checked(found, self._on_error)
                record += table.num_rows
        except CramError:
            raise
        except Exception as error:  # each loader raises what the library beneath it does
            # To go on without the rest would leave out, unnoticed, as much as the network happens to fail for.
            raise CramError(
                f"{self.name} breaks off behind record {record - 1} ({_reason(error)})\n"
                "run the same command again to continue; a shard that breaks off there again is damaged"
            ) from error


def content_hash(heading: str, files: Iterable[tuple[str, Path]], on_error: OnError = "stop") -> str:
    """sha256 in hex over `heading` and the files' names and contents, whatever their order.

    A file that cannot be read is a CramError, or counts as such with "skip".
    """
    total = hashlib.sha256(heading.encode())
    for name, digest in sorted((os.fsencode(name), _digest(path, on_error)) for name, path in files):
        total.update(len(name).to_bytes(4, "little") + name + digest)
    return total.hexdigest()


def _digest(path: Path, on_error: OnError) -> bytes:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        if on_error == "skip":
            return UNREADABLE
        raise stopped(f"{path}: cannot be read ({error.strerror}); make it readable or leave it out") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reported where the file is read
        return 0


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
