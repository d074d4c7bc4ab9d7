"""Cases of the fuzz proof: odd and damaged files of text, prepared with a tokenizer of bytes.

The documents are read from the shards with `safetensors` and compared with those that the standard library or pyarrow
reads from the same file: they must be the same documents in the same order, byte by byte.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from proofs.fuzz_files import DAMAGE, DELIMITERS, PACKED, make_content
from proofs.fuzz_run import Case, Result, call_in_fork

HELD_OUT = "2899137 held out"  # a text with a hash so low that it is the one held out of a few documents
TRAINED = "this one stays"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Paths that are not regular files, by what is there.
IRREGULAR: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
# Formats that are compared while they are sound. What is left of a damaged table or array depends on its reader.
SOUND = ("csv", "tsv", "json", "arrow")
NO_FILTERS = [
    "data.filters.min_words=0",
    "data.filters.symbols=null",
    "data.filters.digits=null",
    "data.filters.repetition=false",
    "data.filters.boilerplate=false",
    "data.filters.fix_c1_controls=false",
    "data.filters.compressibility=null",
    "data.dedupe.exact=false",
    "data.dedupe.near=null",
]
SETTINGS = [
    "recipe=bert_demo",
    "device=cpu",
    "tokenizer=tokenizer.json",
    "data.source=texts",
    "data.dir=out",
    "data.seq_len=64",
    "data.tokens=null",
    "data.held_out=1e-9",
    "data.processes=1",
    *NO_FILTERS,
]


@cache
def byte_tokenizer() -> str:
    """Return a tokenizer.json whose tokens are single bytes, so that texts can be rebuilt from tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = [*SPECIAL, *byte_pieces()]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer.to_str()


def byte_pieces() -> list[str]:
    """Return the piece of each byte as in GPT-2: a printable byte is its own piece, others are mapped from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    pieces = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [pieces[byte] for byte in range(256)]


def read_shards(out: Path) -> list[str]:
    """Return the documents of the only shard folder below a folder, made with `byte_tokenizer`."""
    from safetensors.numpy import load_file

    (folder,) = out.glob("[!.]*")
    paths = sorted(folder.glob("shard-*"))
    documents: list[bytearray] = []
    for token in (token for path in paths for token in load_file(path)["tokens"].ravel().tolist()):
        if token == SPECIAL.index("[CLS]"):
            documents.append(bytearray())
        elif token >= len(SPECIAL):
            documents[-1].append(token - len(SPECIAL))
    return [document.decode() for document in documents]


def decompress(data: bytes, suffix: str) -> bytes:
    """Decompress a file by its suffix. Raises any exception if it is damaged."""
    if suffix == ".gz":
        return gzip.decompress(data)
    if suffix == ".zst":
        import pyarrow as pa

        # Unlike a decompressor of `zstandard`, this stream goes on behind the end of a frame by itself.
        return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
    if suffix in (".xz", ".bz2"):
        if data.startswith(b"\0"):
            raise EOFError("the file begins with zeros")
        content = b""
        while data := data.lstrip(b"\0"):
            stream = lzma.LZMADecompressor() if suffix == ".xz" else bz2.BZ2Decompressor()
            content += stream.decompress(data)
            if not stream.eof:
                raise EOFError("the file ends inside a stream")
            data = stream.unused_data
        return content
    return data


def read_plainly(data: bytes, name: str, document: str, field: str) -> list[str | None]:
    """Return the documents of a file, None in place of an unreadable one. Raises any exception if it is damaged."""
    kind, _, packing = name.removeprefix("file").partition(".")[2].partition(".")
    data = decompress(data, f".{packing}" if packing else "")
    if kind in ("parquet", *SOUND):
        return _read_records(data, kind, field)
    if kind == "jsonl":
        lines = data.split(b"\n")
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        return [_read_record(line.strip(), field) for line in lines if line.strip()]
    if document == "file":
        return [_decode(data)]
    lines = re.split(rb"\r\n|\r|\n", data)
    if document == "line":
        return [_decode(line) for line in lines]
    return _read_paragraphs(lines)


def _read_records(data: bytes, kind: str, field: str) -> list[str | None]:
    """The documents of a file that is not read line by line."""
    if kind == "parquet":
        return _read_parquet(data, field)
    if kind == "arrow":
        return _read_table(_read_arrow(data), field)
    if kind == "json":
        return [_record_text(record, field) for record in json.loads(data.decode("utf-8-sig"))]
    return _read_delimited(data.decode("utf-8-sig"), DELIMITERS[kind], field)


def _read_paragraphs(lines: list[bytes]) -> list[str | None]:
    """The documents that are separated by blank lines."""
    groups: list[list[bytes]] = [[]]
    for line in lines:
        text = _decode(line)
        is_blank = not line.strip(b"\xef\xbb\xbf") or (text is not None and text.strip("\ufeff").isspace())
        groups = [*groups, []] if is_blank else [*groups[:-1], [*groups[-1], line]]
    return [_decode(b"\n".join(group)) for group in groups if group]


def _decode(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _read_record(line: bytes, field: str) -> str | None:
    try:
        return _record_text(json.loads(line.decode()), field)
    except (ValueError, RecursionError):
        return None


def _record_text(record: Any, field: str) -> str | None:
    return _check_text(record.get(field)) if isinstance(record, dict) else None


def _read_delimited(content: str, delimiter: str, field: str) -> list[str | None]:
    header, *rows = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter=delimiter) if row]
    if field not in header:
        return [None] * len(rows)
    return [row[header.index(field)] if len(row) == len(header) else None for row in rows]


def _check_text(value: Any) -> str | None:
    """A text without unpaired surrogates; None in place of any other value."""
    return value if isinstance(value, str) and not re.search("[\ud800-\udfff]", value) else None


def _read_parquet(data: bytes, field: str) -> list[str | None]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    names = file.schema_arrow.names
    table = file.read(columns=[field] if field in names else [])  # damage to other columns does not matter
    if names.count(field) > 1:
        return [None]
    if field not in table.column_names:
        return [None] * file.metadata.num_rows
    return _read_table(table, field)


def _read_arrow(data: bytes) -> Any:
    import pyarrow as pa

    return (pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream)(io.BytesIO(data)).read_all()


def _read_table(table: Any, field: str) -> list[str | None]:
    """The texts of a column of an Arrow table."""
    if table.column_names.count(field) > 1:
        return [None]
    if field not in table.column_names:
        return [None] * table.num_rows
    documents: list[str | None] = []
    for scalar in table.column(field):
        try:
            documents.append(_check_text(scalar.as_py()))
        except UnicodeDecodeError:
            documents.append(None)
    return documents


def make_files(source: random.Random, count: int) -> Iterator[Case]:
    """Yield files of every format with odd records, some of them damaged, each read in one of the possible ways."""
    for _ in range(count):
        kind = source.choice(["txt", "txt", "jsonl", "jsonl", "jsonl", "parquet", *SOUND])
        packing = source.choice(["", "", *PACKED]) if kind not in ("parquet", "arrow") else ""
        damage = source.choice(DAMAGE) if source.random() < 0.55 and kind not in SOUND else ""
        damage = source.choice(list(IRREGULAR)) if source.random() < 0.04 else damage
        document = source.choice(["file", "line", "blank_line"])
        skip = source.random() < 0.4
        field = source.choice(["text"] * 12 + ["body", "", "a.b", "é", "null", "[x]"])
        name, seed = f"file.{kind}{packing}", source.random()
        words = [f"data.document={document}", f"data.on_error={'skip' if skip else 'stop'}", f"data.text_field={field}"]
        make = partial(_make, name, damage, seed, words)
        judge = partial(_judge, damage=damage, name=name, document=document, field=field, skip=skip)
        yield Case("data", f"{name} {damage} {' '.join(words)}", make, judge)


def _make(name: str, damage: str, seed: float, words: list[str], folder: Path) -> list[str]:
    (folder / "texts").mkdir()
    (folder / "texts" / "0.txt").write_text(HELD_OUT)
    (folder / "texts" / "1.txt").write_text(TRAINED)
    if damage in IRREGULAR:
        IRREGULAR[damage](folder / "texts" / name)
    else:
        (folder / "texts" / name).write_bytes(make_content(name, damage, seed))
    (folder / "tokenizer.json").write_text(byte_tokenizer())
    return ["prepare", *SETTINGS, *words]


def _judge(folder: Path, _: Result, damage: str, name: str, document: str, field: str, skip: bool) -> str:
    """Compare the documents with those that are read plainly. Unreadable ones may be missing only with `skip`."""
    path = folder / "texts" / name
    if damage == "a folder":
        expected: list[str | None] | None = []
    elif damage in IRREGULAR:
        expected = None
    else:
        expected = call_in_fork(lambda: read_plainly(path.read_bytes(), name, document, field))
    dropped = json.loads(next((folder / "out").glob("*/manifest.json")).read_text())["dropped"]
    broken = dropped.get("broken", {"documents": 0})["documents"]
    if expected is None:
        return "" if skip and broken else "the file is damaged, and no message says so"
    unreadable = sum(text is None for text in expected)
    if unreadable and not skip:
        return f"{unreadable} documents cannot be read, and no message says so"
    if unreadable != broken:
        return f"{unreadable} documents cannot be read, and {broken} are reported as broken"
    texts = [_normalize(text) for text in [TRAINED, *expected] if text]
    stored = [_normalize(text) for text in read_shards(folder / "out")]
    if [text for text in texts if text] != [text for text in stored if text]:
        return f"{len(stored)} documents {stored!r:.300} instead of {len(texts)}: {texts!r:.300}"
    return ""


def _normalize(text: str) -> str:
    """Remove byte order marks. A text without letters and digits becomes empty, because it may be dropped."""
    return text.replace("\ufeff", "") if any(map(str.isalnum, text)) else ""


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"data": make_files}
