"""Cases of the fuzz proof: odd and damaged files of text, prepared with a tokenizer of bytes.

What comes out is read from the shards with `safetensors` and compared with what the standard library or pyarrow reads
from the same file: the same documents in the same order, byte by byte.
"""

import bz2
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

from proofs.fuzz_files import DAMAGE, PACKED, content
from proofs.fuzz_run import Case, Result, apart

# The hash of this text is so low that of a few documents it is the one that is held out.
ANCHOR = "2899137 held out"
KEPT = "this one stays"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What is not a regular file, or never ends.
PLACES: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
SETTINGS = [
    "recipe=bert_demo", "device=cpu", "tokenizer=tokenizer.json", "data.source=texts", "data.dir=out",
    "data.seq_len=64", "data.tokens=null", "data.held_out=1e-9", "data.processes=1", "data.filters.min_words=0",
    "data.filters.symbols=null", "data.filters.digits=null", "data.filters.repetition=false",
    "data.filters.boilerplate=false", "data.filters.compressibility=null", "data.dedupe.exact=false",
    "data.dedupe.near=null",
]  # fmt: skip


@cache
def byte_tokenizer() -> str:
    """A tokenizer.json whose tokens are single bytes, so that a text can be had back."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = [*SPECIAL, *byte_pieces()]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer.to_str()


def byte_pieces() -> list[str]:
    """The piece of each byte as GPT-2 writes it: printable ones as they are, the others from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    names = {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]


def stored(out: Path) -> list[str]:
    """The documents in the one shard folder below a folder, from tokens of `byte_tokenizer`."""
    from safetensors.numpy import load_file

    (folder,) = out.glob("[!.]*")
    ids = [one for path in sorted(folder.glob("shard-*")) for one in load_file(path)["tokens"].ravel().tolist()]
    found: list[bytearray] = []
    for one in ids:
        if one == SPECIAL.index("[CLS]"):
            found.append(bytearray())
        elif one >= len(SPECIAL):
            found[-1].append(one - len(SPECIAL))
    return [one.decode() for one in found]


def unpacked(data: bytes, packing: str) -> bytes:
    """What a compressed file holds. Errors: any, where it is damaged."""
    if packing == ".gz":
        return gzip.decompress(data)
    if packing == ".zst":
        import pyarrow as pa

        # At the end of a frame it must be told that there may be another one, which it asks for by itself.
        return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read())
    if packing in (".xz", ".bz2"):
        whole, new = b"", lzma.LZMADecompressor if packing == ".xz" else bz2.BZ2Decompressor
        if data.startswith(b"\0"):
            raise EOFError("it begins with zeros")
        while data := data.lstrip(b"\0"):
            stream = new()
            whole += stream.decompress(data)
            if not stream.eof:
                raise EOFError("it ends in mid-stream")
            data = stream.unused_data
        return whole
    return data


def read_plainly(data: bytes, name: str, document: str, field: str) -> list[str | None]:
    """The documents of a file, None for one that cannot be had. Errors: any, where the file is damaged."""
    kind, _, packing = name.removeprefix("file").partition(".")[2].partition(".")
    data = unpacked(data, f".{packing}" if packing else "")
    if kind == "parquet":
        return _parquet(data, field)
    if kind == "jsonl":
        lines = data.split(b"\n")
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        return [_json(line.strip(), field) for line in lines if line.strip()]
    if document == "file":
        return [_text(data)]
    lines = re.split(rb"\r\n|\r|\n", data)
    if document == "line":
        return [_text(line) for line in lines]
    groups: list[list[bytes]] = [[]]
    for line in lines:
        blank = (_text(line) or "x" * bool(line)).strip("\ufeff").isspace() or not line.strip(b"\xef\xbb\xbf")
        groups = [*groups, []] if blank else [*groups[:-1], [*groups[-1], line]]
    return [_text(b"\n".join(group)) for group in groups if group]


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _json(line: bytes, field: str) -> str | None:
    try:
        value = json.loads(line.decode())
        return _sound(value[field]) if isinstance(value, dict) else None
    except (ValueError, KeyError, RecursionError):
        return None


def _sound(value: Any) -> str | None:
    return value if isinstance(value, str) and not re.search("[\ud800-\udfff]", value) else None


def _parquet(data: bytes, field: str) -> list[str | None]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    names = file.schema_arrow.names
    table = file.read(columns=[field] if field in names else [])  # damage to other columns is nothing to the text
    if names.count(field) > 1:
        return [None]
    if field not in table.column_names:
        return [None] * file.metadata.num_rows
    found: list[str | None] = []
    for scalar in table.column(field):
        try:
            found.append(_sound(scalar.as_py()))
        except UnicodeDecodeError:
            found.append(None)
    return found


def files(source: random.Random, count: int) -> Iterator[Case]:
    """Files of every format, with odd records, damaged ones too, read in every way."""
    for _ in range(count):
        kind = source.choice(["txt", "txt", "jsonl", "jsonl", "jsonl", "parquet"])
        packing = source.choice(["", "", *PACKED]) if kind != "parquet" else ""
        damage = source.choice(DAMAGE) if source.random() < 0.55 else ""
        damage = source.choice(list(PLACES)) if source.random() < 0.04 else damage
        document = source.choice(["file", "line", "blank_line"])
        skip = source.random() < 0.4
        field = source.choice(["text"] * 12 + ["body", "", "a.b", "é", "null", "[x]"])
        name, seed = f"file.{kind}{packing}", source.random()
        words = [f"data.document={document}", f"data.on_error={'skip' if skip else 'stop'}", f"data.text_field={field}"]

        def make(folder: Path, name: str = name, seed: float = seed, damage: str = damage,
                 words: list[str] = words) -> list[str]:  # fmt: skip
            (folder / "texts").mkdir()
            (folder / "texts" / "0.txt").write_text(ANCHOR)
            (folder / "texts" / "1.txt").write_text(KEPT)
            if damage in PLACES:
                PLACES[damage](folder / "texts" / name)
            else:
                (folder / "texts" / name).write_bytes(content(name, damage, seed))
            (folder / "tokenizer.json").write_text(byte_tokenizer())
            return ["prepare", *SETTINGS, *words]

        judge = partial(_judge, damage=damage, name=name, document=document, field=field, skip=skip)
        yield Case("data", f"{name} {damage} {' '.join(words)}", make, judge)


def _judge(folder: Path, _: Result, damage: str, name: str, document: str, field: str, skip: bool) -> str:
    """The rule: the documents are those that are read plainly; what cannot be read is left out only where told to."""
    path = folder / "texts" / name
    if damage == "a folder":
        wanted: list[str | None] | None = []
    elif damage in PLACES:
        wanted = None
    else:
        wanted = apart(lambda: read_plainly(path.read_bytes(), name, document, field))
    dropped = json.loads(next((folder / "out").glob("*/manifest.json")).read_text())["dropped"]
    broken = dropped.get("broken", {"documents": 0})["documents"]
    there = stored(folder / "out")
    if wanted is None:
        return "" if skip and broken else "the file is damaged, and it was not said"
    faults = sum(one is None for one in wanted)
    if faults and not skip:
        return f"{faults} documents cannot be read, and it was not said"
    if faults != broken:
        return f"{faults} documents cannot be read, and {broken} are said to be broken"
    plain = [KEPT, *(_comparable(one) for one in wanted if one)]
    found = [_comparable(one) for one in there]
    if [one for one in plain if one] != [one for one in found if one]:
        return f"{len(found)} documents {found!r:.300} instead of {len(plain)}: {plain!r:.300}"
    return ""


def _comparable(text: str) -> str:
    """A text without marks of the order of bytes; nothing of one without letter or digit, which may be left out."""
    return text.replace("\ufeff", "") if any(map(str.isalnum, text)) else ""


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"data": files}
