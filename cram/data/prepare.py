"""Text -> tokenizer -> packed rows -> a shard folder, once for each source and settings."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cram.config import DataConfig, WordPieceConfig
from cram.console import Progress
from cram.data.pack import Packer
from cram.data.shards import FORMAT_VERSION, ShardSet, ShardWriter
from cram.data.sources import Document, Source, open_source, spread
from cram.data.split import HeldOutSplit
from cram.data.tokenizer import SpecialTokens, load_tokenizer, train_tokenizer
from cram.errors import CramError
from cram.record import raise_if_full, sha256_bytes, sha256_file

BATCH_DOCUMENTS = 1000
BATCH_BYTES = 2_000_000  # an encoding takes hundreds of bytes a token, so documents of books come in fewer
BYTES_PER_TOKEN = 4.5  # English in WordPiece: the first guess at what a batch that is not yet encoded holds


def prepare_shards(data: DataConfig, wordpiece: WordPieceConfig, tokenizer: str | None, report: Progress) -> ShardSet:
    """The shards of a source; made if they are not there yet, whole or not at all.

    The folder's name in `data.dir` ends in a hash of the source's content and of all settings that matter, so
    that a change of either gives another folder. `tokenizer` is the path of a tokenizer.json, None to train one.

    Raises CramError for sources, settings and tokenizers at fault, and when the disk is full.
    """
    if not 0.0 <= data.held_out < 1.0:
        raise CramError(f"data.held_out={data.held_out} is no share; give a number from 0 to less than 1")
    if data.seq_len < 2:
        raise CramError(f"data.seq_len={data.seq_len} is too short for a row; give 2 or more")
    if data.tokens is not None and data.tokens < 1:
        raise CramError(f"data.tokens={data.tokens} leaves nothing to train on; give 1 or more, or null for all")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # left out, the library may encode on one core
    source = open_source(data.source, data.text_field, data.document)
    about = {"fingerprint": source.fingerprint(), "settings": _settings(data, wordpiece, tokenizer)}
    digest = sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    folder = Path(data.dir) / f"{_slug(data.source)}-{digest[:12]}"
    if not folder.is_dir():
        with _appearing_whole(folder) as temporary:
            _prepare(temporary, source, data, wordpiece, tokenizer, about, report)
    return ShardSet.open(folder)


def _prepare(
    folder: Path,
    source: Source,
    data: DataConfig,
    wordpiece: WordPieceConfig,
    tokenizer_path: str | None,
    about: dict[str, Any],
    report: Progress,
) -> None:
    with report.stage(f"reading {data.source}", None, "parts") as stage:
        stage.advance(len(source.parts))
    if tokenizer_path is None:
        tokenizer = _train_tokenizer(source, data, wordpiece, report)
    else:
        tokenizer = load_tokenizer(tokenizer_path)
    definition = tokenizer.to_str(pretty=True).encode()
    writer = ShardWriter(folder, data.seq_len, tokenizer.get_vocab_size(), SpecialTokens.of(tokenizer).pad)
    rows = _RowMaker(tokenizer, writer, data.seq_len, data.tokens)
    split = HeldOutSplit(data.held_out)
    empty = _pack(source, split, rows, data, report)
    manifest = about | {
        "sources": [{"name": Path(part.name).name, "bytes": part.size} for part in source.parts],
        "tokenizer": {"sha256": sha256_bytes(definition), "trained_here": tokenizer_path is None},
        "counts": {
            "documents": rows.documents,
            "held_out_documents": split.found,
            "empty_documents": empty + rows.empty,
            "bytes": rows.bytes,
        },
    }
    writer.finish(definition, split.stored(), manifest)


def _train_tokenizer(source: Source, data: DataConfig, wordpiece: WordPieceConfig, report: Progress) -> Tokenizer:
    """Trained on a sample spread over the source, without held-out documents."""
    filled = _NonEmpty()
    split = HeldOutSplit(data.held_out)
    with report.stage("training the tokenizer", None, "bytes") as stage:

        def texts() -> Iterator[str]:
            sample = spread(source, wordpiece.sample_bytes, lambda: filled.bytes)
            for document in split.training(filled(sample)):
                stage.advance(_size(document))
                yield document.text
            _require_text(data.source, filled.documents - split.found, split.found)

        return train_tokenizer(texts(), wordpiece)


def _pack(source: Source, split: HeldOutSplit, rows: "_RowMaker", data: DataConfig, report: Progress) -> int:
    """Make rows of the source's training documents; returns how many documents were empty."""
    filled = _NonEmpty()
    total, unit = (data.tokens, "tokens") if data.tokens else (sum(part.size for part in source.parts) or None, "bytes")
    done = 0
    for part in source.parts:
        part.position = 0  # the tokenizer's sample has moved it
    with report.stage("tokenizing and packing", total, unit) as stage:
        for document in split.training(filled(spread(source, data.tokens, rows.taken))):
            rows.add(document)
            now = rows.tokens if data.tokens else sum(part.position for part in source.parts)
            stage.advance(now - done)
            done = now
        rows.finish()
    _require_text(data.source, rows.documents, split.found)
    return filled.empty


class _NonEmpty:
    """Passes on the documents that hold more than white space, and counts."""

    def __init__(self) -> None:
        self.documents = self.empty = self.bytes = 0

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if document.text and not document.text.isspace():
                self.documents += 1
                self.bytes += _size(document)
                yield document
            else:
                self.empty += 1


class _RowMaker:
    """Tokenizes documents in batches and packs them into the rows of a writer."""

    def __init__(self, tokenizer: Tokenizer, writer: ShardWriter, seq_len: int, limit: int | None):
        self._tokenizer = tokenizer
        # `[MASK]` in a text is text here: as a special token it would be an input that is never predicted.
        self._tokenizer.encode_special_tokens = True
        self._writer = writer
        self._packer = Packer(seq_len, SpecialTokens.of(tokenizer).pad)
        self._limit = limit
        self._batch: list[str] = []
        self._batch_bytes = 0
        self.documents = self.empty = self.bytes = self.tokens = 0

    def taken(self) -> int:
        """Tokens so far, those of the waiting batch estimated."""
        bytes_per_token = self.bytes / self.tokens if self.tokens else BYTES_PER_TOKEN
        return self.tokens + int(self._batch_bytes / bytes_per_token)

    def add(self, document: Document) -> None:
        """Take a document; rows are written when a batch is full or the limit comes near."""
        self._batch.append(document.text)
        self._batch_bytes += _size(document)
        full = len(self._batch) >= BATCH_DOCUMENTS or self._batch_bytes >= BATCH_BYTES
        # Half of what is missing at most: so a poor estimate does not carry far beyond the limit.
        if full or (self._limit is not None and 2 * self.taken() >= self._limit + self.tokens):
            self._encode()

    def finish(self) -> None:
        """Write what is left, the last row padded."""
        self._encode()
        self._writer.write(*self._packer.finish())

    def _encode(self) -> None:
        for encoding in self._tokenizer.encode_batch_fast(self._batch):
            ids = encoding.ids
            if len(ids) > 2:  # more than [CLS] and [SEP]: the normalizer left something of the text
                self._packer.add(ids)
                self.documents += 1
                self.tokens += len(ids)
            else:
                self.empty += 1
        self.bytes += self._batch_bytes
        self._batch, self._batch_bytes = [], 0
        self._writer.write(*self._packer.take())


def _require_text(source: str, training: int, held_out: int) -> None:
    if not training and not held_out:
        raise CramError(f"data.source={source!r}: the files hold no text; give other ones")
    if not training:
        raise CramError(
            f"data.source={source!r}: nothing is left to train on, its {held_out} document(s) are held out\n"
            "give more documents, cut .txt files into more (data.document=blank_line or line), or lower data.held_out"
        )


def _settings(data: DataConfig, wordpiece: WordPieceConfig, tokenizer: str | None) -> dict[str, Any]:
    """What the content of the shards depends on, beside the source."""
    chosen = ("text_field", "document", "tokens", "seq_len", "held_out")
    if tokenizer is not None:
        load_tokenizer(tokenizer)  # refuse a bad path before it is hashed
    return {
        "format": FORMAT_VERSION,
        **{name: value for name, value in asdict(data).items() if name in chosen},
        "tokenizer": asdict(wordpiece) if tokenizer is None else sha256_file(Path(tokenizer)),
    }


def _slug(source: str) -> str:
    """The readable part of a folder's name: the words in the last two steps of the source's path."""
    return "-".join(re.findall(r"[a-z0-9_]+", "/".join(source.lower().split("/")[-2:])))[:48] or "text"


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well, and is removed when it does not."""
    temporary = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if not folder.is_dir():  # else another process was faster, with the same content
            temporary.rename(folder)
    except OSError as error:
        raise_if_full(error, folder.parent)
        raise CramError(
            f"data.dir={str(folder.parent)!r}: cannot be written ({error}); choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _size(document: Document) -> int:
    """Bytes of a document's text."""
    text = document.text
    return len(text) if text.isascii() else len(text.encode())
