"""The table of sources: which words of `data.source` open which source."""

from cram.data.text.document import OnError
from cram.data.text.file_source import FileSource
from cram.data.text.formats import DocumentRule
from cram.data.text.hub_source import PREFIX, HubSource
from cram.data.text.pydocs_source import PydocsSource
from cram.data.text.source import Source


def open_source(
    name: str, text_field: str = "text", document_rule: DocumentRule = "file", on_error: OnError = "stop"
) -> Source:
    """Open the source that `data.source` names. Its content is read later, by its parts.

    Args:
        name: a file, a folder or a glob of files, `hf:NAME[:CONFIG[:SPLIT]]`, or `pydocs`.
        text_field: the field that holds the text of a record.
        document_rule: what one document is in a .txt file.
        on_error: "skip" yields a document with a fault for a record or file that cannot be read, "stop" raises.

    Raises:
        CramError: if no file matches, the extension of a file is not supported, or the name is malformed.
    """
    if name == "pydocs":
        return PydocsSource(on_error)
    if name.startswith(PREFIX):
        return HubSource(name, text_field, on_error)
    return FileSource(name, text_field, document_rule, on_error)
