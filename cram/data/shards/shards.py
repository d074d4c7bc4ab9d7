"""The shard folder: packed rows in checksummed safetensors files, read through memory maps.

manifest.json             version, sources, settings, counts, sha256 of every other file and of itself
shard-00000.safetensors   tokens uint16 (int32 above 65536 pieces) and documents uint8 or uint16, [rows, seq_len]
counts.safetensors        counts int64 [vocab]: how often each token occurs; lengths int64: documents by their tokens
held_out.jsonl            {"text", "hash"}: documents that are not in the rows, in the order of their hashes
tokenizer.json
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from cram.data.shards.mapped_arrays import map_arrays
from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, to_json, write_atomic
from cram.files.sealed import read_sealed, write_sealed

FORMAT_VERSION = 4
MANIFEST, COUNTS, HELD_OUT, TOKENIZER = "manifest.json", "counts.safetensors", "held_out.jsonl", "tokenizer.json"
REMEDY = "delete the folder and run the same command again"
TOKENS_AT_ONCE = 1 << 20
NO_LENGTHS = np.zeros(1, np.int64)

Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class HeldOutDocument:
    """A document that is never trained on; `hash` is the sha256 of its text in hex."""

    text: str
    hash: str


class ShardWriter:
    """Writes rows as shards, then the files beside them, the manifest last: without it a folder is none.

    A shard is what was written between two calls of `flush`; `state` after it is enough to go on in another process.
    """

    def __init__(self, folder: Path, seq_len: int, vocab_size: int, pad_id: int):
        self._folder = folder
        self._seq_len = seq_len
        self._pad_id = pad_id
        self._token_dtype = np.uint16 if vocab_size <= 1 << 16 else np.int32
        self._buffer: list[tuple[Array, Array]] = []
        self._counts = np.zeros(vocab_size, np.int64)
        self._files: dict[str, str] = {}
        self._shards: list[dict[str, Any]] = []
        self.buffered = 0  # rows that no shard holds yet

    def write(self, tokens: Array, documents: Array) -> None:
        """Append rows, int [rows, seq_len]."""
        if len(tokens):
            self._buffer.append((tokens.astype(self._token_dtype), documents.astype(np.uint16)))
            self.buffered += len(tokens)
            self._counts += np.bincount(tokens.ravel(), minlength=len(self._counts))

    @property
    def rows(self) -> int:
        """Rows that are in shards."""
        return sum(shard["rows"] for shard in self._shards)

    def flush(self) -> None:
        """Write the buffered rows, if any, as one shard; CramError when the disk is full."""
        if not self.buffered:
            return
        tokens, documents = (np.concatenate(parts) for parts in zip(*self._buffer, strict=True))
        smallest = np.uint8 if documents.max() < 1 << 8 else np.uint16
        data = save({"tokens": tokens, "documents": documents.astype(smallest, copy=False)})
        name = f"shard-{len(self._shards):05}.safetensors"
        self.file(name, data)
        self._shards.append({"file": name, "rows": len(tokens), "bytes": len(data)})
        self._buffer, self.buffered = [], 0

    def file(self, name: str, data: bytes) -> None:
        """Write a file that the manifest lists with its checksum."""
        write_atomic(self._folder / name, data)
        self._files[name] = sha256_bytes(data)

    def finish(
        self,
        tokenizer: bytes,
        held_out: Iterable[HeldOutDocument],
        manifest: dict[str, Any],
        lengths: npt.NDArray[np.int64] = NO_LENGTHS,
    ) -> None:
        """Write what is left, and the manifest: the given entries and the writer's own.

        `lengths` is how many documents have each number of tokens.
        """
        self.flush()
        lines = (to_json({"text": document.text, "hash": document.hash}) + "\n" for document in held_out)
        self._counts[self._pad_id] = 0
        self.file(TOKENIZER, tokenizer)
        self.file(HELD_OUT, "".join(lines).encode())
        self.file(COUNTS, save({"counts": self._counts, "lengths": lengths}))
        own = {
            "format": FORMAT_VERSION,
            "seq_len": self._seq_len,
            "vocab_size": len(self._counts),
            "rows": self.rows,
            "tokens": int(self._counts.sum()),
            "shards": self._shards,
            "files": self._files,
        }
        write_sealed(self._folder / MANIFEST, own | manifest)

    def state(self) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """What has been written, when nothing is buffered: token counts int64 [vocab], and the rest for JSON."""
        assert not self.buffered
        return self._counts, {"shards": self._shards, "files": self._files}

    def load(self, counts: npt.NDArray[np.int64], state: dict[str, Any]) -> None:
        """Go on behind the shards of a state; ValueError when one of them is not there as it was written."""
        for name, expected in state["files"].items():
            path = self._folder / name
            if not path.is_file() or sha256_file(path) != expected:
                raise ValueError(f"{path} is missing or damaged")
        self._counts, self._shards, self._files = counts, state["shards"], state["files"]


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
        self._shards = [self._map(shard) for shard in manifest["shards"]]
        self._dtypes = [np.result_type(np.uint8, *(pair[i].dtype for pair in self._shards)) for i in (0, 1)]
        self._ends = np.cumsum([shard["rows"] for shard in manifest["shards"]])
        files = manifest["files"]
        hashes = [files[shard["file"]] for shard in manifest["shards"]]
        self.hash = sha256("".join([*hashes, files[TOKENIZER]]).encode()).hexdigest()

    @classmethod
    def open(cls, folder: str | Path) -> "ShardSet":
        """Open a folder.

        Errors: CramError when it is not a shard folder, of another version, or edited, or a shard is cut or missing.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            inside = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
            remedy = f"give one that is in it: {', '.join(inside[:3])}" if inside else "run cram.prepare"
            raise CramError(f"{folder}: no shard folder, it holds no {MANIFEST}; {remedy}")
        manifest = read_json(folder / MANIFEST)
        version = manifest.get("format") if isinstance(manifest, dict) else None
        if version != FORMAT_VERSION:
            raise CramError(f"{folder / MANIFEST}: format {version}, this version reads {FORMAT_VERSION}; {REMEDY}")
        try:
            return cls(folder, read_sealed(folder / MANIFEST, f"; {REMEDY}"))
        except (KeyError, TypeError) as error:
            raise CramError(f"{folder / MANIFEST}: damaged ({error!r}); {REMEDY}") from error

    def read(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Rows by number, in the given order: tokens and documents, [len(indices), seq_len], as they are stored.

        Tokens are uint16, int32 above 65536 pieces; documents uint8, or uint16 where a row holds more.
        """
        order = np.argsort(indices)  # so that each shard is read once, forward
        ordered = indices[order]
        homes = np.searchsorted(self._ends, ordered, side="right")
        tokens, documents = (np.empty((len(indices), self.seq_len), dtype) for dtype in self._dtypes)
        for begin, end in pairwise([*np.flatnonzero(np.diff(homes, prepend=-1)).tolist(), len(homes)]):
            shard = self._shards[homes[begin]]
            rows = ordered[begin:end] - (self._ends[homes[begin]] - len(shard[0]))
            for stored, found in zip(shard, (tokens, documents), strict=True):
                if stored.dtype == found.dtype:
                    # Without `clip`, take would fill a buffer of its own first; rows are in range by searchsorted.
                    np.take(stored, rows, axis=0, out=found[begin:end], mode="clip")
                else:  # narrower than in another shard
                    found[begin:end] = stored[rows]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return tokens[back], documents[back]

    def blocks(self) -> Iterator[tuple[Path, npt.NDArray[np.integer], npt.NDArray[np.integer]]]:
        """All rows, some at a time: the shard they are in, tokens and documents as stored.

        A shard is mapped only while it is read: the pages of maps that are kept would fill the memory.
        """
        step = max(1, TOKENS_AT_ONCE // self.seq_len)
        for shard in self.manifest["shards"]:
            tokens, documents = self._map(shard)
            for start in range(0, shard["rows"], step):
                yield self.folder / shard["file"], tokens[start : start + step], documents[start : start + step]

    def verify(self) -> None:
        """Compare every file with its sha256; CramError naming the first that differs."""
        for name in self.manifest["files"]:
            self.file(name)

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists. Errors: CramError where its content is not what was written."""
        path = self.folder / name
        if not path.is_file():
            raise CramError(f"{path}: missing; {REMEDY}")
        if sha256_file(path) != self.manifest["files"][name]:
            raise CramError(f"{path}: damaged, its content is not what the manifest's sha256 says; {REMEDY}")
        return path

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json of the rows, as it was written."""
        return self.file(TOKENIZER)

    def token_counts(self) -> npt.NDArray[np.int64]:
        """How often each token occurs in the rows, padding not counted: int64 [vocab]."""
        return load_file(self.file(COUNTS))["counts"]

    def lengths(self) -> npt.NDArray[np.int64]:
        """How many documents have each number of tokens, longer ones counted in the last place."""
        return load_file(self.file(COUNTS))["lengths"]

    def held_out(self) -> list[HeldOutDocument]:
        """The held-out documents in the order of their hashes."""
        with self.file(HELD_OUT).open(encoding="utf-8") as lines:
            return [HeldOutDocument(**json.loads(line)) for line in lines]

    def _map(self, shard: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The tokens and documents of a shard, as views of its memory map."""
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
