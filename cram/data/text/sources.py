"""The table of sources: which words of `data.source` open which source."""

from cram.config.sources import SourceEntry, is_list, parse_sources
from cram.data.text.document import OnError
from cram.data.text.encodings import normalize_encoding
from cram.data.text.file_source import FileSource
from cram.data.text.hub_source import PREFIX, HubSource
from cram.data.text.options import DocumentRule, ReadingOptions
from cram.data.text.pydocs_source import PydocsSource
from cram.data.text.remote import is_address
from cram.data.text.remote_source import RemoteSource
from cram.data.text.source import Source
from cram.data.text.source_list import SourceList

PYDOCS = "pydocs"


def open_source(
    name: str,
    text_field: str = "text",
    document_rule: DocumentRule = "file",
    on_error: OnError = "stop",
    encoding: str = "utf-8",
) -> Source:
    """Open the source that `data.source` names. Its content is read later, by its parts.

    Args:
        name: a file, a folder or a glob of files, an address of a store, `hf:NAME[:CONFIG[:SPLIT]]`, `pydocs`, or a
            list of these, `[a.jsonl, {path: books/, weight: 0.7, text_field: body}]`.
        text_field: the field that holds the text of a record.
        document_rule: what one document is in a .txt file.
        on_error: "skip" yields a document with a fault for a record or file that cannot be read, "stop" raises.
        encoding: of text, JSON and delimited files.

    Raises:
        CramError: if no file matches, the extension of a file is not supported, the name is malformed, the encoding is
            unknown, or a store cannot be reached.
    """
    options = ReadingOptions(text_field, document_rule, on_error, normalize_encoding(encoding))
    if not is_list(name):
        return _open_single(name, options)
    entries = parse_sources(name)
    return SourceList([(one, _open_single(one.path, _own_options(one, options))) for one in entries])


def _open_single(name: str, options: ReadingOptions) -> Source:
    if name == PYDOCS:
        return PydocsSource(options.on_error)
    if is_address(name):  # also hf://datasets/NAME/FILE, a file of the Hub
        return RemoteSource(name, options)
    if name.startswith(PREFIX):
        return HubSource(name, options)
    return FileSource(name, options)


def _own_options(entry: SourceEntry, options: ReadingOptions) -> ReadingOptions:
    """The options of an entry of a list, which may have its own field, document rule and encoding."""
    rule: DocumentRule = entry.document or options.document
    encoding = normalize_encoding(entry.encoding) if entry.encoding else options.encoding
    return ReadingOptions(entry.text_field or options.text_field, rule, options.on_error, encoding)
