"""The shard folder: packed rows in checksummed safetensors files, read through memory maps.

manifest.json             version, sources, settings, counts, sha256 of every other file
shard-00000.safetensors   tokens uint16 (int32 above 65536 pieces) and documents uint8 or uint16, [rows, seq_len]
counts.safetensors        counts int64 [vocab]: how often each token occurs in the rows
held_out.jsonl            {"text", "hash"}: documents that are not in the rows, in the order of their hashes
tokenizer.json
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from cram.errors import CramError
from cram.record import read_json, sha256_bytes, sha256_file, write_atomic, write_json

FORMAT_VERSION = 1
ROWS_PER_SHARD = 32_768
MANIFEST, COUNTS, HELD_OUT, TOKENIZER = "manifest.json", "counts.safetensors", "held_out.jsonl", "tokenizer.json"
DTYPES = {"U8": np.uint8, "U16": np.uint16, "I32": np.int32}
REMEDY = "delete the folder and run the same command again"

Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class HeldOut:
    """A document that is never trained on; `hash` is the sha256 of its text in hex."""

    text: str
    hash: str


class ShardWriter:
    """Writes rows as shards, then the files beside them, the manifest last: without it a folder is none."""

    def __init__(self, folder: Path, seq_len: int, vocab_size: int, pad_id: int):
        self._folder = folder
        self._seq_len = seq_len
        self._pad_id = pad_id
        self._token_dtype = np.uint16 if vocab_size <= 1 << 16 else np.int32
        self._buffer: list[tuple[Array, Array]] = []
        self._buffered = 0
        self._counts = np.zeros(vocab_size, np.int64)
        self._files: dict[str, str] = {}
        self._shards: list[dict[str, Any]] = []
        self.rows = 0

    def write(self, tokens: Array, documents: Array) -> None:
        """Append rows, int [rows, seq_len]; CramError when the disk is full."""
        self._buffer.append((tokens, documents))
        self._buffered += len(tokens)
        self._counts += np.bincount(tokens.ravel(), minlength=len(self._counts))
        self.rows += len(tokens)
        while self._buffered >= ROWS_PER_SHARD:
            self._shard(ROWS_PER_SHARD)

    def finish(self, tokenizer: bytes, held_out: Iterable[HeldOut], manifest: dict[str, Any]) -> None:
        """Write what is left, and the manifest: the given entries and the writer's own."""
        if self._buffered:
            self._shard(self._buffered)
        lines = (json.dumps({"text": document.text, "hash": document.hash}) + "\n" for document in held_out)
        self._counts[self._pad_id] = 0
        self._file(TOKENIZER, tokenizer)
        self._file(HELD_OUT, "".join(lines).encode())
        self._file(COUNTS, save({"counts": self._counts}))
        own = {
            "format": FORMAT_VERSION,
            "seq_len": self._seq_len,
            "vocab_size": len(self._counts),
            "rows": self.rows,
            "tokens": int(self._counts.sum()),
            "shards": self._shards,
            "files": self._files,
        }
        write_json(self._folder / MANIFEST, own | manifest)

    def _shard(self, rows: int) -> None:
        tokens, documents = (np.concatenate(parts) for parts in zip(*self._buffer, strict=True))
        self._buffer = [(tokens[rows:], documents[rows:])]
        self._buffered -= rows
        tokens, documents = tokens[:rows], documents[:rows]
        smallest = np.uint8 if documents.max() < 1 << 8 else np.uint16
        data = save({"tokens": tokens.astype(self._token_dtype), "documents": documents.astype(smallest)})
        name = f"shard-{len(self._shards):05}.safetensors"
        self._file(name, data)
        self._shards.append({"file": name, "rows": rows, "bytes": len(data)})

    def _file(self, name: str, data: bytes) -> None:
        write_atomic(self._folder / name, data)
        self._files[name] = sha256_bytes(data)


class ShardSet:
    """A shard folder, open for reading."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        """Map the shards of `folder`; use `open`, which reads the manifest."""
        self.folder = folder
        self.manifest = manifest
        self.rows: int = manifest["rows"]
        self.seq_len: int = manifest["seq_len"]
        self.vocab_size: int = manifest["vocab_size"]
        self.tokens: int = manifest["tokens"]
        self.documents: int = manifest["counts"]["documents"]
        self.tokenizer_path = folder / TOKENIZER
        self._shards = [self._map(shard) for shard in manifest["shards"]]
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]])
        files = manifest["files"]
        hashes = [files[shard["file"]] for shard in manifest["shards"]]
        self.hash = sha256("".join([*hashes, files[TOKENIZER]]).encode()).hexdigest()

    @classmethod
    def open(cls, folder: str | Path) -> "ShardSet":
        """Open a folder; CramError when it is no shard folder, of another version, or a shard is cut or missing."""
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise CramError(f"{folder}: no shard folder, it holds no {MANIFEST}; run cram.prepare")
        manifest = read_json(folder / MANIFEST)
        version = manifest.get("format") if isinstance(manifest, dict) else None
        if version != FORMAT_VERSION:
            raise CramError(f"{folder / MANIFEST}: format {version}, this version reads {FORMAT_VERSION}; {REMEDY}")
        try:
            return cls(folder, manifest)
        except (KeyError, TypeError) as error:
            raise CramError(f"{folder / MANIFEST}: damaged ({error!r}); {REMEDY}") from error

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """Rows by number, in the given order: tokens and documents, int32 [len(indices), seq_len]."""
        tokens = np.empty((len(indices), self.seq_len), np.int32)
        documents = np.empty_like(tokens)
        homes = np.searchsorted(self._ends, indices, side="right")
        for home in np.unique(homes):
            here = np.flatnonzero(homes == home)
            stored_tokens, stored_documents = self._shards[home]
            rows = indices[here] - (self._ends[home] - len(stored_tokens))
            tokens[here] = stored_tokens[rows]
            documents[here] = stored_documents[rows]
        return tokens, documents

    def verify(self) -> None:
        """Compare every file with its sha256; CramError naming the first that differs."""
        for name, expected in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise CramError(f"{path}: missing; {REMEDY}")
            if sha256_file(path) != expected:
                raise CramError(f"{path}: damaged, its content is not what the manifest's sha256 says; {REMEDY}")

    def token_counts(self) -> npt.NDArray[np.int64]:
        """How often each token occurs in the rows, padding not counted: int64 [vocab]."""
        return load_file(self.folder / COUNTS)["counts"]

    def held_out(self) -> list[HeldOut]:
        """The held-out documents in the order of their hashes."""
        with (self.folder / HELD_OUT).open(encoding="utf-8") as lines:
            return [HeldOut(**json.loads(line)) for line in lines]

    def _map(self, shard: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Views of the two payloads of a shard's memory map, behind its 8-byte header length and JSON header."""
        path = self.folder / shard["file"]
        if not path.is_file():
            raise CramError(f"{path}: missing; {REMEDY}")
        if path.stat().st_size != shard["bytes"]:
            raise CramError(f"{path}: {path.stat().st_size} bytes, expected {shard['bytes']} (truncated?); {REMEDY}")
        data = np.memmap(path, np.uint8, mode="r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        try:
            header = json.loads(data[8:start].tobytes())
            tokens, documents = (self._payload(data[start:], header[name]) for name in ("tokens", "documents"))
        except (ValueError, KeyError, TypeError) as error:
            raise CramError(f"{path}: damaged header ({error}); {REMEDY}") from error
        if tokens.shape != documents.shape or tokens.shape != (shard["rows"], self.seq_len):
            raise CramError(f"{path}: shape {tokens.shape}, expected {(shard['rows'], self.seq_len)}; {REMEDY}")
        return tokens, documents

    @staticmethod
    def _payload(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
        begin, end = entry["data_offsets"]
        return data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
