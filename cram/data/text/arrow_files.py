"""Files of Parquet and Arrow, and the record batches in them -> documents."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from cram.data.text.decompression import DamagedFileError
from cram.data.text.document import Document, faulty_document
from cram.data.text.records import no_field_document, split_path, text_document

ROWS_AT_ONCE = 512  # rows that are turned into text at once
FILE_MARK = b"ARROW1"  # the first bytes of an Arrow file; a stream has none


def read_arrow(batch: Any, fields: Any, text_field: str, origin_prefix: str, first_number: int) -> Iterator[Document]:
    """Yield a document, or a document with a fault, for each record of an Arrow record batch or table.

    Args:
        batch: the records. Only the column with the text is read.
        fields: the schema of the records, which may have more columns than the batch.
        text_field: the field that holds the text, or a dotted path to it; see `record_document`.
        origin_prefix: the origin of a document is this prefix and the number of its record.
        first_number: the number of the first record.
    """
    numbers = range(first_number, first_number + batch.num_rows)
    origins = (f"{origin_prefix}{number}" for number in numbers)
    path = find_path(fields, text_field)
    if path:
        for text, origin in zip(_column_values(_nested_column(batch, path)), origins, strict=True):
            yield text_document(text, text_field, origin)
    else:
        for origin in origins:
            yield no_field_document(list(fields.names), text_field, origin)


def find_path(fields: Any, text_field: str) -> list[str]:
    """Return the names of the nested fields that a dotted path leads through; empty if there is no such field.

    Args:
        fields: an Arrow schema, or the type of a column of records.
        text_field: the path. A field whose own name holds the dots comes first.
    """
    import pyarrow as pa

    inner = {fields[number].name: fields[number].type for number in range(len(_names(fields)))}
    if text_field in inner:
        return [text_field]
    for name, rest in split_path(text_field):
        if name in inner and pa.types.is_struct(inner[name]) and (path := find_path(inner[name], rest)):
            return [name, *path]
    return []


def read_parquet(raw: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    """Yield the documents of an open Parquet file. Of its columns, only the one with the text is read.

    Raises:
        DamagedFileError: the file cannot be read any further.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 1
    try:
        parquet = pq.ParquetFile(raw)
        fields = parquet.schema_arrow
        if (columns := fields.names.count(text_field)) > 1:
            yield _ambiguous_document(name, columns, text_field)
            return
        path = find_path(fields, text_field)
        for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=[".".join(path)] if path else []):
            yield from read_arrow(batch, fields, text_field, f"{name}:", row)
            row += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the second: the name of a column is not UTF-8
        raise DamagedFileError(error) from error


def read_arrow_file(raw: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    """Yield the documents of an open Arrow file or stream, such as `datasets` writes; one record batch at a time.

    Raises:
        DamagedFileError: the file cannot be read any further.
    """
    import pyarrow as pa

    row = 1
    try:
        for batch in _record_batches(raw):
            if (columns := batch.schema.names.count(text_field)) > 1:
                yield _ambiguous_document(name, columns, text_field)
                return
            _check_offsets(batch, find_path(batch.schema, text_field))
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                rows = batch.slice(start, ROWS_AT_ONCE)
                yield from read_arrow(rows, batch.schema, text_field, f"{name}:", row + start)
            row += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DamagedFileError(error) from error


def _record_batches(raw: BinaryIO) -> Iterator[Any]:
    import pyarrow as pa

    beginning = raw.read(len(FILE_MARK))
    raw.seek(0)
    if beginning == FILE_MARK:
        file = pa.ipc.open_file(raw)
        yield from (file.get_batch(number) for number in range(file.num_record_batches))
    elif beginning:
        yield from pa.ipc.open_stream(raw)
    else:
        raise DamagedFileError("it is empty")


def _check_offsets(batch: Any, path: list[str]) -> None:
    """Refuse a damaged column, in which a text would lie outside of the memory that was read.

    Texts that are not UTF-8 are in order here; they are faults of their records.
    """
    import pyarrow as pa

    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    if path:
        batch.column(path[0]).validate()
        column = _nested_column(batch, path)
        column.validate()
        is_text = column.type in as_bytes
        (column.view(as_bytes[column.type]) if is_text else column).validate(full=True)


def _nested_column(batch: Any, path: list[str]) -> Any:
    import pyarrow.compute as pc

    column = batch.column(path[0])
    return pc.struct_field(column, path[1:]) if path[1:] else column


def _ambiguous_document(name: str, columns: int, text_field: str) -> Document:
    return faulty_document(
        name, f"{columns} columns are named {text_field!r}; rename all but one, or set data.text_field"
    )


def _names(fields: Any) -> list[str]:
    return list(fields.names) if hasattr(fields, "names") else [field.name for field in fields]


def _column_values(column: Any) -> Iterable[Any]:
    """Return the values of an Arrow column; a value that is not UTF-8 is replaced by the error."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return map(_scalar_value, column)
    return values


def _scalar_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error
