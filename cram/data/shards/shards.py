"""The shard folder: packed rows in safetensors files with checksums, read through memory maps.

manifest.json             format version, sources, settings, counts, sha256 of every other file and of itself
shard-00000.safetensors   tokens uint16 (int32 above 65536 pieces) and documents uint8 or uint16, [rows, seq_len]
counts.safetensors        counts int64 [vocab_size]: how often each token occurs; lengths int64: how many documents have
                          each number of tokens
held_out.jsonl            {"text", "hash"}: documents that are not in the rows, in the order of their hashes
tokenizer.json            the tokenizer of the rows
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from cram.data.shards.mapped_arrays import map_arrays
from cram.data.shards.shard_file import call_here, remove_temporary_shards, write_shard
from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, to_json, write_atomic
from cram.files.sealed import read_sealed, write_sealed

FORMAT_VERSION = 4
MANIFEST, COUNTS, HELD_OUT, TOKENIZER = "manifest.json", "counts.safetensors", "held_out.jsonl", "tokenizer.json"
REMEDY = "delete the folder and run the same command again."
TOKENS_AT_ONCE = 1 << 20
NO_LENGTHS = np.zeros(1, np.int64)

Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class HeldOutDocument:
    """A document that is never trained on.

    Attributes:
        text: as it was read.
        hash: the sha256 of the text, in hex.
    """

    text: str
    hash: str


class ShardWriter:
    """Writes the shards, then the other files, and the manifest last. A folder without a manifest is incomplete.

    A shard holds the rows written between two calls of `flush`. The `state` after a `flush` is enough for another
    process to continue.

    Args:
        folder: the shard folder; it is created with its first file.
        seq_len: tokens of a row.
        vocab_size: tokens are stored as uint16 if every id fits, else as int32.
        pad_id: the id of padding, which is not counted as a token.
        call: calls a function with arguments, perhaps in another process; shards are written by it.
    """

    def __init__(
        self, folder: Path, seq_len: int, vocab_size: int, pad_id: int, call: Callable[..., Any] = call_here
    ) -> None:
        self._folder = folder
        self._call = call
        self._seq_len = seq_len
        self._pad_id = pad_id
        self._token_dtype = np.uint16 if vocab_size <= 1 << 16 else np.int32
        self._buffer: list[tuple[Array, Array]] = []
        self._counts = np.zeros(vocab_size, np.int64)
        self._files: dict[str, str] = {}
        self._shards: list[dict[str, Any]] = []
        self.buffered = 0  # rows that are not in a shard yet

    def write(self, tokens: Array, documents: Array) -> None:
        """Append rows.

        Args:
            tokens: int [rows, seq_len].
            documents: int [rows, seq_len], the index of each token's document within its row.
        """
        if len(tokens):
            self._buffer.append((tokens.astype(self._token_dtype), documents.astype(np.uint16)))
            self.buffered += len(tokens)
            self._counts += np.bincount(tokens.ravel(), minlength=len(self._counts))

    @property
    def rows(self) -> int:
        """The number of rows in the shards written so far."""
        return sum(shard["rows"] for shard in self._shards)

    def flush(self) -> None:
        """Write the buffered rows, if there are any, as one shard.

        Raises:
            CramError: the disk is full.
        """
        if not self.buffered:
            return
        tokens, documents = (np.concatenate(parts) for parts in zip(*self._buffer, strict=True))
        name = f"shard-{len(self._shards):05}.safetensors"
        temporary, size, self._files[name] = self._call(
            write_shard, (self._folder / name).absolute(), tokens, documents
        )
        (self._folder / temporary).replace(self._folder / name)
        self._shards.append({"file": name, "rows": len(tokens), "bytes": size})
        self._buffer, self.buffered = [], 0

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file that the manifest will list with its checksum."""
        write_atomic(self._folder / name, data)
        self._files[name] = sha256_bytes(data)

    def finish(
        self,
        tokenizer: bytes,
        held_out: Iterable[HeldOutDocument],
        manifest: dict[str, Any],
        lengths: npt.NDArray[np.int64] = NO_LENGTHS,
    ) -> None:
        """Write the buffered rows, the other files and the manifest.

        Args:
            tokenizer: the content of tokenizer.json.
            held_out: the held-out documents, in the order of their hashes.
            manifest: entries of the manifest besides those that the writer knows itself.
            lengths: int64, how many documents have each number of tokens.
        """
        self.flush()
        remove_temporary_shards(self._folder)
        lines = (to_json({"text": document.text, "hash": document.hash}) + "\n" for document in held_out)
        self._counts[self._pad_id] = 0
        self.write_file(TOKENIZER, tokenizer)
        self.write_file(HELD_OUT, "".join(lines).encode())
        self.write_file(COUNTS, save({"counts": self._counts, "lengths": lengths}))
        entries = {
            "format": FORMAT_VERSION,
            "seq_len": self._seq_len,
            "vocab_size": len(self._counts),
            "rows": self.rows,
            "tokens": int(self._counts.sum()),
            "shards": self._shards,
            "files": self._files,
        }
        write_sealed(self._folder / MANIFEST, entries | manifest)

    def state(self) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """Return the state, when no rows are buffered: token counts, int64 [vocab_size], and the rest for JSON."""
        assert not self.buffered
        return self._counts, {"shards": self._shards, "files": self._files}

    def load(self, counts: npt.NDArray[np.int64], state: dict[str, Any]) -> None:
        """Continue after the shards of a state.

        Raises:
            ValueError: one of the files is missing or has another content.
        """
        for name, checksum in state["files"].items():
            path = self._folder / name
            if not path.is_file() or sha256_file(path) != checksum:
                raise ValueError(f"{path} is missing or damaged")
        self._counts, self._shards, self._files = counts, state["shards"], state["files"]


class ShardSet:
    """A shard folder, open for reading; `ShardSet.open` opens one.

    Attributes:
        folder: where it is.
        manifest: the content of manifest.json.
        rows, seq_len: the number of rows and of tokens in each.
        vocab_size: every token id is below it.
        tokens: in all rows, padding not counted.
        documents: in all rows.
        hash: identifies the rows and the tokenizer; runs and orders name the shards by it.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Map the shards of `folder`, whose manifest has been read."""
        self.folder = folder
        self.manifest = manifest
        self.rows: int = manifest["rows"]
        self.seq_len: int = manifest["seq_len"]
        self.vocab_size: int = manifest["vocab_size"]
        self.tokens: int = manifest["tokens"]
        self.documents: int = manifest["counts"]["documents"]
        self._shards = [self._map(shard) for shard in manifest["shards"]]
        self._dtypes = [np.result_type(np.uint8, *(pair[i].dtype for pair in self._shards)) for i in (0, 1)]
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]])
        files = manifest["files"]
        hashes = [files[shard["file"]] for shard in manifest["shards"]]
        self.hash = sha256("".join([*hashes, files[TOKENIZER]]).encode()).hexdigest()

    @classmethod
    def open(cls, folder: str | Path) -> "ShardSet":
        """Open a shard folder and map its shards.

        Raises:
            CramError: it is not a shard folder, it has another format version, its manifest was edited, or a shard
                is missing or truncated.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            shard_folders = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
            remedy = f"name one inside it: {', '.join(shard_folders[:3])}" if shard_folders else "run cram.prepare"
            raise CramError(f"{folder}: not a shard folder, it has no {MANIFEST}; {remedy}")
        manifest = read_json(folder / MANIFEST)
        version = manifest.get("format") if isinstance(manifest, dict) else None
        if version != FORMAT_VERSION:
            raise CramError(
                f"{folder / MANIFEST}: format {version}, this version of cram reads {FORMAT_VERSION}; {REMEDY}"
            )
        try:
            return cls(folder, read_sealed(folder / MANIFEST, f"; {REMEDY}"))
        except (KeyError, TypeError) as error:
            raise CramError(f"{folder / MANIFEST}: damaged ({error!r}); {REMEDY}") from error

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Read rows by their numbers.

        Args:
            indices: int64 [n], numbers of rows in any order.

        Returns:
            Tokens, uint16 or int32 [n, seq_len], and documents, uint8 or uint16 [n, seq_len], in the order of
            `indices`.
        """
        order = np.argsort(indices)  # so that each shard is read once, forward
        ordered = indices[order]
        shard_numbers = np.searchsorted(self._ends, ordered, side="right")
        tokens, documents = (np.empty((len(indices), self.seq_len), dtype) for dtype in self._dtypes)
        starts = np.flatnonzero(np.diff(shard_numbers, prepend=-1)).tolist()
        for begin, end in pairwise([*starts, len(shard_numbers)]):
            number = shard_numbers[begin]
            shard = self._shards[number]
            rows = ordered[begin:end] - (self._ends[number] - len(shard[0]))
            for stored, result in zip(shard, (tokens, documents), strict=True):
                if stored.dtype == result.dtype:
                    # mode="clip" because take would fill a buffer of its own first; searchsorted keeps rows in range.
                    np.take(stored, rows, axis=0, out=result[begin:end], mode="clip")
                else:  # this shard stores a narrower type than another one
                    result[begin:end] = stored[rows]
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return tokens[inverse], documents[inverse]

    def blocks(self) -> Iterator[tuple[Path, npt.NDArray[np.integer], npt.NDArray[np.integer]]]:
        """Yield all rows in blocks: the path of their shard, tokens and documents as they are stored.

        A shard is mapped only while it is read, because the pages of maps that stay open would fill the memory.
        """
        step = max(1, TOKENS_AT_ONCE // self.seq_len)
        for shard in self.manifest["shards"]:
            tokens, documents = self._map(shard)
            for start in range(0, shard["rows"], step):
                yield self.folder / shard["file"], tokens[start : start + step], documents[start : start + step]

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            CramError: a file is missing or differs; the message names the first one.
        """
        for name in self.manifest["files"]:
            self.checked_path(name)

    def checked_path(self, name: str) -> Path:
        """Return the path of a file that the manifest lists, after comparing its content with the checksum.

        Raises:
            CramError: the file is missing or its content differs.
        """
        path = self.folder / name
        if not path.is_file():
            raise CramError(f"{path}: missing; {REMEDY}")
        if sha256_file(path) != self.manifest["files"][name]:
            raise CramError(f"{path}: damaged, its sha256 is not the one in the manifest; {REMEDY}")
        return path

    @property
    def tokenizer_path(self) -> Path:
        """The path of the tokenizer of the rows, after its checksum was compared."""
        return self.checked_path(TOKENIZER)

    def token_counts(self) -> npt.NDArray[np.int64]:
        """Return how often each token occurs in the rows, padding not counted: int64 [vocab_size]."""
        return load_file(self.checked_path(COUNTS))["counts"]

    def lengths(self) -> npt.NDArray[np.int64]:
        """Return how many documents have each number of tokens: int64. The last element counts all longer ones too."""
        return load_file(self.checked_path(COUNTS))["lengths"]

    def held_out(self) -> list[HeldOutDocument]:
        """Return the held-out documents in the order of their hashes."""
        with self.checked_path(HELD_OUT).open(encoding="utf-8") as lines:
            return [HeldOutDocument(**json.loads(line)) for line in lines]

    def _map(self, shard: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Map a shard; its tokens and documents are views of the map."""
        path = self.folder / shard["file"]
        if not path.is_file():
            raise CramError(f"{path}: missing; {REMEDY}")
        if path.stat().st_size != shard["bytes"]:
            raise CramError(f"{path}: {path.stat().st_size} bytes, expected {shard['bytes']} (truncated?); {REMEDY}")
        try:
            arrays, _ = map_arrays(path)
            tokens, documents = arrays["tokens"], arrays["documents"]
        except (ValueError, KeyError) as error:
            raise CramError(f"{path}: damaged header ({error}); {REMEDY}") from error
        if tokens.shape != documents.shape or tokens.shape != (shard["rows"], self.seq_len):
            raise CramError(f"{path}: shape {tokens.shape}, expected {(shard['rows'], self.seq_len)}; {REMEDY}")
        return tokens, documents
