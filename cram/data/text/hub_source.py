"""A Hugging Face data set as a source, streamed from the Hub or read from a local folder."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cram.data.text.document import Document, OnError, stop_at_fault
from cram.data.text.formats import read_arrow
from cram.data.text.source import Source, SourcePart, hash_content
from cram.errors import CramError

PREFIX = "hf:"
ANSWER_SECONDS = 5.0  # the longest wait for an answer of the Hub
RECORDS_AT_ONCE = 256  # records of a stream that are turned into text at once


class HubSource(Source):
    """A Hugging Face data set, `hf:NAME[:CONFIG[:SPLIT]]`; NAME may also be a local folder.

    The data set is loaded when its parts are first asked for.

    Raises:
        CramError: if the name is malformed.
    """

    def __init__(self, name: str, text_field: str, on_error: OnError) -> None:
        dataset, *rest = name.removeprefix(PREFIX).split(":")
        if not dataset or len(rest) > 2 or not name.isprintable():  # bytes that are not UTF-8 are not printable
            raise CramError(f"data.source={name!r}: expected hf:NAME[:CONFIG[:SPLIT]].")
        self._name = name
        self._dataset = dataset
        self._config = (rest[0] if rest else "") or None
        self._split = (rest[1] if len(rest) == 2 else "") or "train"
        self._text_field = text_field
        self._on_error: OnError = on_error

    @cached_property
    def parts(self) -> list[SourcePart]:
        """A part for each shard of the data set, as it was uploaded.

        Raises:
            CramError: if the data set cannot be loaded.
        """
        import datasets

        revision = self.revision
        try:
            stream = datasets.load_dataset(
                self._dataset, self._config, split=self._split, streaming=True, revision=revision
            ).with_format("arrow")  # several times faster than a mapping for each record
        except Exception as error:  # every loader raises what the library below it raises
            raise self._load_error(error) from error
        shards: int = stream.num_shards
        return [HubPart(self._name, stream, index, shards, self._text_field, self._on_error) for index in range(shards)]

    def fingerprint(self) -> str:
        """Return a sha256 over name, configuration, split and revision, or the contents of a local folder.

        If the Hub cannot be asked for the revision, the sha256 covers the name, configuration and split alone.

        Raises:
            CramError: if a local folder cannot be read.
        """
        folder = Path(self._dataset)
        heading = f"hf {folder.name if folder.is_dir() else self._dataset} {self._config} {self._split}"
        if folder.is_dir():
            try:
                files = [(str(path.relative_to(folder)), path) for path in folder.rglob("*") if path.is_file()]
            except OSError as error:
                raise self._load_error(error) from error
            return hash_content(heading, files, self._on_error)
        return hash_content(f"{heading} {self.revision if self.reachable else None}", [], self._on_error)

    @cached_property
    def reachable(self) -> bool:
        """Whether the content is known: always of a local folder, of a data set if the Hub tells its revision."""
        try:
            return self.revision is not None or Path(self._dataset).is_dir()
        except CramError:
            return False

    @cached_property
    def revision(self) -> str | None:
        """The commit of the data set on the Hub; None for a local folder.

        Raises:
            CramError: if the Hub cannot be asked.
        """
        if Path(self._dataset).is_dir():
            return None
        from huggingface_hub import HfApi

        # Asked before `datasets` is: without a network, `datasets` retries for half a minute.
        try:
            return HfApi().dataset_info(self._dataset, timeout=ANSWER_SECONDS).sha
        except Exception as error:
            raise self._load_error(error) from error

    def _load_error(self, error: Exception) -> CramError:
        return CramError(
            f"data.source={self._name!r} cannot be loaded ({_first_line(error)})\n"
            "check the name, configuration and split, and the network; or give local files."
        )


class HubPart(SourcePart):
    """A shard of a streamed Hugging Face data set; its size is unknown."""

    def __init__(
        self, source_name: str, stream: Any, index: int, shards: int, text_field: str, on_error: OnError
    ) -> None:
        super().__init__(f"{source_name} shard {index + 1}/{shards}", 0)
        self._stream = stream
        self._index = index
        self._shards = shards
        self._text_field = text_field
        self._on_error: OnError = on_error

    def read(self) -> Iterator[tuple[Document, int]]:
        """Yield the documents in the order of the shard.

        Raises:
            CramError: if the stream breaks off, also with `on_error` "skip": going on without the rest would
                silently leave out as much text as the network happens to lose.
        """
        record = 1
        try:
            shard = self._stream.shard(num_shards=self._shards, index=self._index)
            for table in shard.iter(batch_size=RECORDS_AT_ONCE):
                documents = read_arrow(table, table.column_names, self._text_field, f"{self.name} record ", record)
                for document in stop_at_fault(documents, self._on_error):
                    yield document, 0
                record += table.num_rows
        except CramError:
            raise
        except Exception as error:  # every loader raises what the library below it raises
            raise CramError(
                f"{self.name} breaks off after record {record - 1} ({_first_line(error)})\n"
                "run the same command again to continue; if the shard breaks off there again, it is damaged."
            ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
