"""Text files for the fuzz proof: odd records in every format and compression, and ways in which a file is damaged."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

TEXTS = (
    "The river crosses the valley.",
    "one\ntwo\n\nthree",
    "a\r\nb\rc",
    " spaces  around ",
    "",
    " ",
    "\n\n",
    "\u2028x\u2029y",
    "é日本 ½ \U0001d7d9 e\u0301",
    "[CLS] [SEP] [PAD] [MASK]",
    "\x00",
    "a\x00b",
    "\x1a1",
    "\x85\x0b\x0c\x1c9",
    "\ufeff",
    "\ufeffb7",
    "\u200b\u202ex",
    "'\"\\/\b",
    '{"text": 1}',
    "null",
    "0",
    "\U0010ffff\uffff1",
    "##a ##b",
    "<s></s>",
    "\u00ad2",
    "!?...",
    "x" * 300,
    "word " * 200,
    "\t\ttab",
    "http://example.org/?a=b&c=%20",
    "\ud7ff\ue0003",
    "ﷺﷺ",
    "\u0345\u0345",
)
ODD_JSON = (
    b"",
    b"   ",
    b"{}",
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"{",
    b"}",
    b"nul",
    b'{"text": null}',
    b'{"text": 1}',
    b'{"text": ["a"]}',
    b'{"text": {"text": "a"}}',
    b'{"text": true}',
    b'{"text": "a", "text": "last"}',
    b'{"text": "last", "text": 3}',
    b'{"Text": "a"}',
    b'{"text ": "a"}',
    b'{"text": "a"} ',
    b'{"text": "a"}x',
    b'{"text": "a"}{"text": "b"}',
    b'{"text": "a",}',
    b"{'text': 'a'}",
    b'{"text": "a" /* c */}',
    b'{text: "a"}',
    b'{"text": NaN}',
    b'{"n": NaN, "text": "n1"}',
    b'{"n": 1e999, "text": "n2"}',
    b'{"n": -Infinity, "text": "n3"}',
    b'{"n": ' + b"9" * 5000 + b', "text": "n4"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\\ud83d\\ude00 pair"}',
    b'{"text": "\\u0000 zero"}',
    b'{"text": "\\x41"}',
    b'{"text": "a\tb"}',
    b'{"text": "\xff"}',
    b'{"text": "\xed\xa0\x80"}',
    b'{"text": "\xc0\xaf"}',
    b'\xef\xbb\xbf{"text": "bom"}',
    b'\x00{"text": "a"}',
    b'{"text": "cr"}\r',
    b'\r{"text": "cr"}',
    b'{"text":\r"cr inside"}',
    b'\x0b{"text": "vt"}',
    b'\xc2\xa0{"text": "nbsp"}',
    b'{"\\u0074ext": "escaped key"}',
    b'{"a": ' * 500 + b"1" + b"}" * 500,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"text": "deep", "a": ' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"text": "' + b"long " * 20_000 + b'"}',
    b'{"text": "' + b"a" * 70_000,
    b'{"k%d": 1}' * 3,
    b"{" + b",".join(b'"k%d": 1' % n for n in range(5000)) + b', "text": "wide"}',
)


def _zstandard(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


DELIMITERS = {"csv": ",", "tsv": "\t"}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": _zstandard,
}
DAMAGE = ("cut", "cut", "flip", "flip", "flips", "insert", "garbage", "zeros", "twice", "empty", "head", "hole")


def make_content(name: str, damage: str, seed: float) -> bytes:
    """Return the bytes of an odd file of this name, damaged or not."""
    source = random.Random(seed)
    data = _make_records(name.split(".")[1], source)
    packing = name.removeprefix("file").partition(".")[2].partition(".")[2]
    if source.random() < 0.1:
        data = source.choice([b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data[:-1], data + b"\n\n"])
    damage_first = damage and packing and source.random() < 0.2  # then the compression itself is sound
    data = damage_bytes(data, damage, source) if damage_first else data
    data = PACKED[f".{packing}" if packing else ""](data)
    return data if damage_first else damage_bytes(data, damage, source)


def damage_bytes(data: bytes, damage: str, source: random.Random) -> bytes:
    """Damage the content of a file in one of the ways of `DAMAGE`. With `damage` "" it stays as it is."""
    place = source.randrange(len(data) + 1)
    if damage in ("flip", "flips"):
        changed = bytearray(data)
        for _ in range(len(data) and (1 if damage == "flip" else 20)):
            changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
        return bytes(changed)
    ways = {
        "cut": data[:place],
        "insert": data[:place] + source.randbytes(1) + data[place:],
        "garbage": data + b"garbage\n",
        "zeros": data + bytes(source.choice([1, 3, 4, 64])),
        "twice": data + data,
        "empty": b"",
        "head": data[place:],
        "hole": data[:place] + bytes(len(data[place : place + 16])) + data[place + 16 :],
    }
    return ways.get(damage, data)


def _make_records(kind: str, source: random.Random) -> bytes:
    texts = source.choices(TEXTS, k=source.randrange(1, 12))
    if kind == "txt":
        odd = [b"\xff", b"\xed\xa0\x80", b"caf\xe9", b"\xef\xbb\xbf", "x".encode("utf-16"), b"a" * 70_000]
        parts = [source.choice(odd) if source.random() < 0.1 else text.encode() for text in texts]
        return source.choice([b"\n", b"\n\n", b"\r\n", b"\r", b" \n\t\n"]).join(parts)
    if kind in ("parquet", "arrow"):
        return _write_parquet(texts, source) if kind == "parquet" else _write_arrow(texts, source)
    if kind in DELIMITERS:
        stream = io.StringIO()
        rows = [("n", "text"), *enumerate(texts)]
        csv.writer(
            stream, delimiter=DELIMITERS[kind], quoting=csv.QUOTE_ALL if source.random() < 0.5 else csv.QUOTE_MINIMAL
        ).writerows(rows)
        return stream.getvalue().encode()
    if kind == "json":
        records = [{"text": text, "n": {"text": text}} for text in texts]
        return json.dumps(records, indent=source.choice([None, 0, 2]), ensure_ascii=source.random() < 0.5).encode()
    plain = [json.dumps({"n": 1, "text": text}, ensure_ascii=source.random() < 0.5) for text in texts]
    lines = [line.encode() for line in plain]
    for _ in range(source.choice([0, 1, 1, 2])):
        lines.insert(source.randrange(len(lines) + 1), source.choice(ODD_JSON))
    return b"\n".join(lines) + b"\n" * (source.random() < 0.8)


def _make_table(texts: Sequence[str], source: random.Random) -> Any:
    """A table with a column of texts, which may have any type."""
    import pyarrow as pa

    count = len(texts)
    nulls = [text if source.random() < 0.7 else None for text in texts]
    raw = [source.choice([text.encode(), b"\xff\xfe"]) for text in texts]
    plain = pa.array(texts)
    columns = [
        *[plain] * 4,
        pa.array(nulls),
        pa.array(texts, pa.large_string()),
        plain.dictionary_encode(),
        pa.array(texts, pa.string_view()),
        pa.Array.from_buffers(pa.string(), count, pa.array(raw).buffers()),
        pa.array(raw),
        pa.array(raw, pa.large_binary()),
        pa.array(range(count)),
        pa.array([1.5] * count),
        pa.array([True] * count),
        pa.array([0] * count, pa.timestamp("ns")),
        pa.array([10**30] * count, pa.decimal128(38)),
        pa.nulls(count),
        pa.array([[text] for text in texts]),
        pa.array([{"text": text} for text in texts]),
        pa.array([[("k", text)] for text in texts], pa.map_(pa.string(), pa.string())),
        pa.array([[]] * count, pa.list_(pa.null())),
    ]
    names = source.choice([["n", "text"]] * 8 + [["text", "text"], ["n", "Text"], ["", "text"], ["text", "é"]])
    table = pa.Table.from_arrays([pa.array(range(count)), source.choice(columns)], names=names)
    if source.random() < 0.1:
        table = source.choice([table.slice(0, 0), pa.concat_tables([table] * 300)])
    return table


def _write_arrow(texts: Sequence[str], source: random.Random) -> bytes:
    """An Arrow file or stream of a table."""
    import pyarrow as pa

    table = _make_table(texts, source)
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=source.choice([None, "lz4", "zstd"]))
    new = source.choice([pa.ipc.new_file, pa.ipc.new_stream])
    with new(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=source.choice([1, 3, 1000]))
    return out.getvalue()


def _write_parquet(texts: Sequence[str], source: random.Random) -> bytes:
    """A Parquet file of a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _make_table(texts, source)
    out = io.BytesIO()
    options: dict[str, Any] = {
        "compression": source.choice(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
        "row_group_size": source.choice([1, 3, 1000]),
        "use_dictionary": source.random() < 0.5,
        "data_page_version": source.choice(["1.0", "2.0"]),
        "write_page_checksum": source.random() < 0.2,
        "version": source.choice(["1.0", "2.6"]),
    }
    try:
        pq.write_table(table, out, **options)
    except (pa.ArrowException, KeyError):  # pyarrow cannot write this type: draw another one
        return _write_parquet(texts, source)
    return out.getvalue()
