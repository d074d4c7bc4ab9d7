"""A Hugging Face data set as a source, streamed from the Hub or read from a local folder."""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cram.data.text.arrow_files import read_arrow
from cram.data.text.document import Document, stop_at_fault
from cram.data.text.file_source import FilePart
from cram.data.text.formats import EXTENSIONS
from cram.data.text.options import ReadingOptions
from cram.data.text.remote import RemoteFile, first_line, is_address
from cram.data.text.remote_source import RemotePart
from cram.data.text.source import Source, SourcePart, StatedSize, hash_content
from cram.errors import CramError

PREFIX = "hf:"
ANSWER_SECONDS = 5.0  # the longest wait for an answer of the Hub
RECORDS_AT_ONCE = 256  # records of a stream that are turned into text at once
# Formats whose values have no type in the file. The library makes dates and numbers of texts that look like some.
GUESSED_FORMATS = ("json", "csv")
# Fields of a loader's configuration that do not change how a file is read.
NAMING = ("name", "version", "data_dir", "data_files", "description", "features")


class Dataset(NamedTuple):
    """What names a split of a Hugging Face data set. The revision is None for a local folder."""

    name: str
    config: str | None
    split: str
    revision: str | None


class HubSource(Source):
    """A Hugging Face data set, `hf:NAME[:CONFIG[:SPLIT]]`; NAME may also be a local folder.

    The data set is loaded when its parts are first asked for.

    Raises:
        CramError: if the name is malformed.
    """

    def __init__(self, name: str, options: ReadingOptions) -> None:
        dataset, *rest = name.removeprefix(PREFIX).split(":")
        if not dataset or len(rest) > 2 or not name.isprintable():  # bytes that are not UTF-8 are not printable
            raise CramError(f"data.source={name!r}: expected hf:NAME[:CONFIG[:SPLIT]].")
        self._name = name
        self._dataset = dataset
        self._config = (rest[0] if rest else "") or None
        self._split = (rest[1] if len(rest) == 2 else "") or "train"
        self._options = options

    @cached_property
    def parts(self) -> list[SourcePart]:
        """A part for each shard of the data set, as it was uploaded.

        Raises:
            CramError: if the data set cannot be loaded.
        """
        dataset = Dataset(self._dataset, self._config, self._split, self.revision)
        try:
            _load.cache_clear()  # the files of a local folder may have changed
            stream, files = _load(dataset)
        except Exception as error:  # every loader raises what the library below it raises
            raise self._load_error(error) from error
        shards: int = stream.num_shards
        names = [f"{self._name} shard {index + 1}/{shards}" for index in range(shards)]
        if len(files) == shards:
            return [_FilePart(name, file, self._options) for name, file in zip(names, files, strict=True)]
        return [HubPart(name, dataset, index, self._options) for index, name in enumerate(names)]

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
            return hash_content(heading, files, self._options.on_error)
        return hash_content(f"{heading} {self.revision if self.reachable else None}", [], self._options.on_error)

    @cached_property
    def reachable(self) -> bool:
        """Whether the content is known: always of a local folder, of a data set if the Hub tells its revision."""
        try:
            return self.revision is not None or Path(self._dataset).is_dir()
        except CramError:
            return False

    @property
    def stated_size(self) -> StatedSize | None:
        """The size in the data set's card; None if the card does not say it.

        The card gives one download for all splits. A split's share of it is taken to be its share of the bytes.

        Raises:
            CramError: if the data set cannot be loaded.
        """
        dataset = Dataset(self._dataset, self._config, self._split, self.revision)
        try:
            info = _load(dataset)[0].info
        except Exception as error:  # every loader raises what the library below it raises
            raise self._load_error(error) from error
        split = (info.splits or {}).get(self._split)
        if not split or not split.num_examples:
            return None
        download: float | None = 0.0
        if dataset.revision is not None:
            total = sum(other.num_bytes or 0 for other in info.splits.values())
            download = info.download_size * split.num_bytes / total if info.download_size and total else None
        return StatedSize(split.num_examples, download)

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
            f"data.source={self._name!r} cannot be loaded ({first_line(error)})\n"
            "check the name, configuration and split, and the network; or give local files."
        )


class HubPart(SourcePart):
    """A shard of a streamed Hugging Face data set; its size is unknown.

    It is cheap to pickle: each process loads the data set once, when it reads the first shard.
    """

    def __init__(self, name: str, dataset: Dataset, index: int, options: ReadingOptions) -> None:
        super().__init__(name, 0)
        self.is_remote = dataset.revision is not None
        self._dataset = dataset
        self._index = index
        self._options = options

    def read(self) -> Iterator[tuple[Document, int]]:
        """Yield the documents in the order of the shard.

        Raises:
            CramError: if the stream breaks off, also with `on_error` "skip": going on without the rest would
                silently leave out as much text as the network happens to lose.
        """
        record = 1
        try:
            stream, _ = _load(self._dataset)
            shard = stream.shard(num_shards=stream.num_shards, index=self._index)
            for table in shard.iter(batch_size=RECORDS_AT_ONCE):
                documents = read_arrow(table, table.schema, self._options.text_field, f"{self.name} record ", record)
                for document in stop_at_fault(documents, self._options.on_error):
                    yield document, 0
                record += table.num_rows
        except CramError:
            raise
        except Exception as error:  # every loader raises what the library below it raises
            raise CramError(
                f"{self.name} breaks off after record {record - 1} ({first_line(error)})\n"
                "run the same command again to continue; if the shard breaks off there again, it is damaged."
            ) from error


class _FilePart(SourcePart):
    """A shard of a data set that is one file of JSON or CSV, whose text is read as it stands there.

    As for other shards, the size counts as unknown, so that the share of each shard does not depend on its format.
    """

    def __init__(self, name: str, path: str, options: ReadingOptions) -> None:
        super().__init__(name, 0)
        self.is_remote = is_address(path)
        self._file = (
            RemotePart(RemoteFile(path, 0, ""), options, name)
            if is_address(path)
            else FilePart(Path(path), options, name)
        )

    @property
    def identity(self) -> str:
        return self._file.identity

    def read(self) -> Iterator[tuple[Document, int]]:
        return ((document, 0) for document, _ in self._file.read())


@lru_cache
def _load(dataset: Dataset) -> tuple[Any, list[str]]:
    """Load a data set as a stream; for JSON and CSV return also the files of its shards, if they can be read alone."""
    import datasets

    builder = datasets.load_dataset_builder(dataset.name, dataset.config, revision=dataset.revision)
    stream = builder.as_streaming_dataset(split=dataset.split)
    # Tables are several times faster than a mapping for each record.
    return stream.with_format("arrow"), _shard_files(builder, dataset.split)


def _shard_files(builder: Any, split: str) -> list[str]:
    if not type(builder).__module__.endswith(tuple(f".packaged_modules.{kind}.{kind}" for kind in GUESSED_FORMATS)):
        return []
    config = builder.config
    usual = type(config)()
    changed = [name for name, value in vars(config).items() if name not in NAMING and value != getattr(usual, name)]
    files = [str(path) for path in (config.data_files or {}).get(split, [])]
    plain = all(path.lower().endswith(EXTENSIONS) and "::" not in path for path in files)
    return files if plain and not changed else []
