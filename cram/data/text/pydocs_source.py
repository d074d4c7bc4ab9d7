"""The English prose of the Python installation as a source: the default, which needs no download."""

import platform
from collections.abc import Iterator
from pathlib import Path

from cram.data.text import pydocs
from cram.data.text.document import Document, OnError, stop_at_fault
from cram.data.text.source import Source, SourcePart, hash_content


class PydocsPart(SourcePart):
    """The prose of one package of the Python installation. Its size is counted in characters."""

    def __init__(self, name: str, documents: list[Document], on_error: OnError) -> None:
        super().__init__(name, sum(len(document.text) for document in documents))
        self._documents = documents
        self._on_error: OnError = on_error

    def read(self) -> Iterator[tuple[Document, int]]:
        """Yield a document for each module and documentation file."""
        position = 0
        for document in stop_at_fault(self._documents, self._on_error):
            position += len(document.text)
            yield document, position


class PydocsSource(Source):
    """The English prose in the documentation of the running Python and its packages."""

    def __init__(self, on_error: OnError) -> None:
        self._files = pydocs.find_documentation()
        self._on_error: OnError = on_error
        self._parts: list[SourcePart] = []

    @property
    def parts(self) -> list[SourcePart]:
        """A part for each package. They are made at the first call and kept: about 10 MB that take seconds to clean."""
        if not self._parts:
            packages = pydocs.extract_prose(self._files)
            self._parts = [PydocsPart(name, documents, self._on_error) for name, documents in packages.items()]
        return self._parts

    def fingerprint(self) -> str:
        """Return a sha256 over the Python version, the files' names and contents, and the code that cleans them."""
        cleaner = ("", Path(pydocs.__file__))
        return hash_content(f"pydocs {platform.python_version()}", [cleaner, *self._files], self._on_error)
