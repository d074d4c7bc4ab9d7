"""How the files and records of a source are read."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cram.data.text.document import OnError

DocumentRule: TypeAlias = Literal["file", "blank_line", "line"]


@dataclass(frozen=True)
class ReadingOptions:
    """The keys of `data` that say how the files and records of a source are read.

    Attributes:
        text_field: the field that holds the text of a record; a dotted path names a field of a nested record.
        document: what one document is in a file of plain text.
        on_error: "skip" yields a document with a fault for a record or file that cannot be read, "stop" raises.
        encoding: of plain text, of JSON and of files of comma or tab separated values; a name that Python knows.
    """

    text_field: str = "text"
    document: DocumentRule = "file"
    on_error: OnError = "stop"
    encoding: str = "utf-8"
