"""`data.source` -> parts (a file each, or one stream) that yield documents.

Parts are read one at a time: a zstd window may take 128 MiB, and a corpus has hundreds of files.
"""

import glob
import hashlib
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from cram.data import pydocs
from cram.data.formats import EXTENSIONS, Document, DocumentRule, read_documents, text_of
from cram.errors import CramError

__all__ = ["Document", "Part", "Source", "open_source", "spread"]

HUB_SECONDS = 5.0


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
        """The documents in order, streamed; CramError for content that is at fault."""


class Source(ABC):
    """Where the text comes from."""

    @property
    @abstractmethod
    def parts(self) -> list[Part]:
        """The parts in a fixed order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A sha256 in hex that changes when the content does."""


def open_source(spec: str, text_field: str = "text", document: DocumentRule = "file") -> Source:
    """The source that `data.source` names: a glob of files, `hf:NAME[:CONFIG[:SPLIT]]` or `pydocs`.

    Raises CramError when nothing matches, a file's extension is not supported, or the name is malformed.
    Content is read later, by the parts.
    """
    if spec == "pydocs":
        return PydocsSource()
    if spec.startswith("hf:"):
        return HubSource(spec, text_field)
    return FileSource(spec, text_field, document)


def spread(source: Source, limit: int | None, size: Callable[[], int]) -> Iterator[Document]:
    """Documents until `size()`, the amount taken so far, reaches `limit` (all when None), from every part its share.

    A part's share of the limit is its share of the source's bytes; what an earlier part left of its share goes
    to the later ones. Where the shares do not reach the limit, a second round reads on in the parts that hold more.
    """
    if limit is None:
        for part in source.parts:
            yield from part.documents()
        return
    total = sum(part.size for part in source.parts)
    unfinished: list[tuple[Part, int]] = []
    reached = 0
    for part in source.parts:
        reached += part.size
        share = limit * reached // total if total else limit
        for taken, document in enumerate(part.documents()):
            if size() >= share:
                unfinished.append((part, taken))
                break
            yield document
    for part, taken in unfinished:
        for document in islice(part.documents(), taken, None):
            if size() >= limit:
                return
            yield document


class FilePart(Part):
    """A file."""

    def __init__(self, path: Path, text_field: str, document: DocumentRule):
        super().__init__(str(path), path.stat().st_size)
        self._path = path
        self._text_field = text_field
        self._document: DocumentRule = document

    def documents(self) -> Iterator[Document]:
        """The documents of the file; CramError for damaged files and bad records."""
        try:
            with self._path.open("rb") as raw:
                for document in read_documents(raw, self.name, self._text_field, self._document):
                    self.position = raw.tell()
                    yield document
        except OSError as error:
            raise CramError(f"{self.name}: cannot be read ({error.strerror})") from error
        self.position = self.size


class FileSource(Source):
    """The files that match a glob (`**` goes into folders), in the order of their names."""

    def __init__(self, pattern: str, text_field: str, document: DocumentRule):
        paths = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())  # noqa: PTH207
        if not paths:
            raise CramError(
                f"data.source={pattern!r} matches no file (in {Path.cwd()}); "
                "give a glob of files, hf:NAME[:CONFIG[:SPLIT]] or pydocs"
            )
        for path in paths:
            if not path.name.endswith(EXTENSIONS):
                raise CramError(
                    f"data.source={pattern!r}: {path} is of no supported format; supported: {', '.join(EXTENSIONS)}"
                )
        self._paths = paths
        self._parts: list[Part] = [FilePart(path, text_field, document) for path in paths]

    @property
    def parts(self) -> list[Part]:
        """A part for each file."""
        return self._parts

    def fingerprint(self) -> str:
        """sha256 over the files' names and contents; the folders they lie in do not matter."""
        return content_hash("files", [(path.name, path) for path in self._paths])


class PydocsPart(Part):
    """The prose of one package of the Python installation."""

    def __init__(self, name: str, documents: list[Document]):
        super().__init__(name, sum(len(document.text) for document in documents))
        self._documents = documents

    def documents(self) -> Iterator[Document]:
        """A document for each module and documentation file."""
        self.position = 0
        for document in self._documents:
            self.position += len(document.text)
            yield document


class PydocsSource(Source):
    """The English prose in the documentation of the running Python and its packages."""

    def __init__(self) -> None:
        self._files = pydocs.documentation_files()
        self._parts: list[Part] = []

    @property
    def parts(self) -> list[Part]:
        """A part for each package, made at the first call and kept: about 10 MB that take seconds to clean."""
        if not self._parts:
            self._parts = [PydocsPart(name, documents) for name, documents in pydocs.prose(self._files).items()]
        return self._parts

    def fingerprint(self) -> str:
        """sha256 over the Python version, the files' names and contents, and the code that cleans them."""
        cleaner = ("", Path(pydocs.__file__))
        return content_hash(f"pydocs {platform.python_version()}", [cleaner, *self._files])


class HubSource(Source):
    """A Hugging Face data set, streamed; NAME may also be a local folder."""

    def __init__(self, spec: str, text_field: str):
        name, *rest = spec.removeprefix("hf:").split(":")
        if not name or len(rest) > 2:
            raise CramError(f"data.source={spec!r}: expected hf:NAME[:CONFIG[:SPLIT]]")
        self._spec = spec
        self._name = name
        self._config = (rest[0] if rest else "") or None
        self._split = (rest[1] if len(rest) == 2 else "") or "train"
        self._parts: list[Part] = [HubPart(self, spec, text_field)]

    @property
    def parts(self) -> list[Part]:
        """One part, the stream."""
        return self._parts

    def fingerprint(self) -> str:
        """sha256 over name, configuration, split and the revision (a local folder's contents), if it can be asked."""
        folder = Path(self._name)
        heading = f"hf {folder.name if folder.is_dir() else self._name} {self._config} {self._split}"
        if folder.is_dir():
            return content_hash(heading, [(str(p.relative_to(folder)), p) for p in folder.rglob("*") if p.is_file()])
        try:
            return content_hash(f"{heading} {self.revision()}", [])
        except CramError:
            return content_hash(heading, [])

    def revision(self) -> str | None:
        """The commit of the data set on the Hub (None for a local folder); CramError when it cannot be asked."""
        if Path(self._name).is_dir():
            return None
        from huggingface_hub import HfApi

        # Asked before `datasets` is: without a network that one retries for half a minute.
        try:
            return HfApi().dataset_info(self._name, timeout=HUB_SECONDS).sha
        except Exception as error:
            raise self.refused(error) from error

    def stream(self) -> Iterator[dict[str, Any]]:
        """The records of the split; CramError when the data set cannot be loaded."""
        revision = self.revision()
        import datasets

        try:
            yield from datasets.load_dataset(
                self._name, self._config, split=self._split, streaming=True, revision=revision
            )
        except Exception as error:  # each loader raises what the library beneath it does
            raise self.refused(error) from error

    def refused(self, error: Exception) -> CramError:
        """What to tell the user when the data set cannot be had."""
        reason = (str(error).strip().splitlines() or [""])[0]
        return CramError(
            f"data.source={self._spec!r} cannot be loaded ({type(error).__name__}: {reason})\n"
            "check the name, configuration and split, and the network; or give local files"
        )


class HubPart(Part):
    """The one stream of a Hugging Face data set; its size is not known."""

    def __init__(self, source: HubSource, name: str, text_field: str):
        super().__init__(name, 0)
        self._source = source
        self._text_field = text_field

    def documents(self) -> Iterator[Document]:
        """The records' texts in the order of the stream."""
        for number, record in enumerate(self._source.stream(), start=1):
            yield text_of(record, self._text_field, f"{self.name} record {number}")


def content_hash(heading: str, files: Iterable[tuple[str, Path]]) -> str:
    """sha256 in hex over `heading` and the files' names and contents, whatever their order."""
    total = hashlib.sha256(heading.encode())
    for name, digest in sorted((name.encode(), _digest(path)) for name, path in files):
        total.update(len(name).to_bytes(4, "little") + name + digest)
    return total.hexdigest()


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise CramError(f"{path}: cannot be read ({error.strerror})") from error
