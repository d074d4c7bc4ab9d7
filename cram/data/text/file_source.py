"""Files as a source: one file, the files of a folder, or those that match a glob."""

import os
from collections.abc import Iterator
from pathlib import Path

from cram.config.sources import EXAMPLE
from cram.data.text.document import Document, faulty_document, stop_at_fault
from cram.data.text.formats import EXTENSIONS, SUPPORTED, read_documents
from cram.data.text.options import ReadingOptions
from cram.data.text.paths import find_files, open_file
from cram.data.text.saved_datasets import select_record_files
from cram.data.text.source import Source, SourcePart, hash_content
from cram.errors import CramError


class FilePart(SourcePart):
    """A file.

    Args:
        path: of the file.
        options: how it is read.
        name: of the part; None is the path.
    """

    def __init__(self, path: Path, options: ReadingOptions, name: str | None = None) -> None:
        # If the name is not UTF-8, its bytes are escaped in messages and in the manifest.
        super().__init__(name or os.fsencode(path).decode(errors="backslashreplace"), _size_on_disk(path))
        self._path = path
        self._options = options

    @property
    def identity(self) -> str:
        """The path without links."""
        return os.path.realpath(self._path)

    def read(self) -> Iterator[tuple[Document, int]]:
        """Yield the documents of the file, each with how many bytes of the file were read up to it."""
        try:
            with open_file(self._path) as raw:
                for document in read_documents(raw, self.name, self._options, self._path.name):
                    yield document, raw.tell()
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); make it readable or leave it out"
            for document in stop_at_fault([faulty_document(self.name, problem)], self._options.on_error):
                yield document, self.size


class FileSource(Source):
    """A file, the files of a folder, or those that match a glob, in the order of their names.

    Raises:
        CramError: if no file matches, the extension of a file is not supported, or a folder holds several splits of a
            saved data set. A file that cannot be read, such as a link to a disk that is not there, is reported when
            its part is read.
    """

    def __init__(self, pattern: str, options: ReadingOptions) -> None:
        paths = find_files(pattern, EXTENSIONS)
        if os.path.isdir(pattern):  # noqa: PTH112 (Path.is_dir raises for names that are too long or hold a zero byte)
            paths = [Path(name) for name in select_record_files(pattern, [path.as_posix() for path in paths])]
        if not paths:
            raise CramError(
                f"data.source={pattern!r} matches no file (in {Path.cwd()}); "
                "give a file, a folder, a glob of files, an address such as s3://BUCKET/FOLDER, "
                "hf:NAME[:CONFIG[:SPLIT]] or pydocs."
                f"{f' A list ends in a bracket: {EXAMPLE}.' if pattern[:1] in ('[', '{') else ''}"
            )
        for path in paths:
            if not path.name.lower().endswith(EXTENSIONS):
                raise CramError(f"data.source={pattern!r}: {path} has no supported extension; supported: {SUPPORTED}")
        self._paths = paths
        self._options = options
        self._parts: list[SourcePart] = [FilePart(path, options) for path in paths]

    @property
    def parts(self) -> list[SourcePart]:
        """A part for each file."""
        return self._parts

    def fingerprint(self) -> str:
        """Return a sha256 over the files' names and contents; the folders they lie in do not matter."""
        return hash_content("files", [(path.name, path) for path in self._paths], self._options.on_error)


def _size_on_disk(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reported when the file is read
        return 0
