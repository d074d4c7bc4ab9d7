"""Cases of the fuzz proof: data files of every format, and tokenizers.

What a preparation has accepted is read again here with the standard library, pyarrow and `tokenizers` alone: the rows
must hold the documents of the files, but for those held out and dropped, as the ids that the library gives.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import zstandard
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from proofs.fuzz_run import Case, Result

SYLLABLES = ("ba", "re", "mi", "ton", "sul", "ke", "dor", "van", "li", "po", "gra", "nes", "hu", "fi", "za", "mer")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "": (lambda data: data, lambda data: data),
    ".gz": (gzip.compress, gzip.decompress),
    ".xz": (lzma.compress, lzma.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
    ".zst": (zstandard.compress, lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
}
DAMAGES = (
    "sound", "cut", "bits", "bits", "bytes", "bytes", "twice", "tail", "empty", "a folder", "a pipe", "a dangling link",
    "a link in a circle", "a device", "zeros",
)  # fmt: skip
# Lines that are no record, or an odd one.
ODD_LINES = (
    "", " ", "{}", "[]", "null", '{"text": null}', '{"text": 3}', '{"text": ["a"]}', '{"text": ""}', '{"Text": "a"}',
    "\0", '{"text": "a", "text": "TEXT"}', '{"text": "\\ud800"}', '{"text": "TEXT\\u0000"}', '{"text": "TEXT"} x',
    '{"text": "TEXT", "n": NaN}', '{"text": "TEXT\ud800"}', '{"text": "TEXT"}\r', "[" * 3000,
    '{"text": "TEXT", "n": ' + "9" * 5000 + "}", '{"text": "TEXT", "n": ' + "[" * 2000,
    '{"text": "' + "a" * 100_000 + '"}',
)  # fmt: skip
# Every filter off, so that what is dropped is known.
PLAIN = [
    "recipe=bert_demo", "data.dir=shards", "data.seq_len=32", "data.held_out=0.05", "data.processes=1",
    "wordpiece.vocab_size=128", "data.dedupe.exact=false", "data.dedupe.near=null", "data.filters.min_words=0",
    "data.filters.symbols=null", "data.filters.digits=null", "data.filters.repetition=false",
    "data.filters.boilerplate=false", "data.filters.compressibility=null",
]  # fmt: skip


def texts(source: random.Random, count: int = 60) -> list[str]:
    """Documents of made-up words, all different."""
    return [" ".join(_word(source) for _ in range(source.randrange(8, 40))) for _ in range(count)]


def _word(source: random.Random) -> str:
    return "".join(source.choices(SYLLABLES, k=source.randrange(1, 4)))


def data_files(source: random.Random, count: int) -> Iterator[Case]:
    """Damaged, odd and sound files beside a sound one."""
    for _ in range(count):
        kind, packing = source.choice(["jsonl", "jsonl", "txt", "parquet"]), source.choice(list(PACKINGS))
        name = "odd.parquet" if kind == "parquet" else f"odd.{kind}{packing}"
        content = _parquet(source) if kind == "parquet" else PACKINGS[packing][0](_plain(source, kind))
        how, data = _damaged(source, content)
        good = texts(source, 40)
        yield Case("data", f"{name}, {how}, {len(data)} bytes", _file_maker(name, data, how, good), _judge_data, 20.0)


def _file_maker(name: str, data: bytes, how: str, good: list[str]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "in").mkdir()
        (folder / "in" / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in good))
        path = folder / "in" / name
        if how == "a folder":
            path.mkdir()
        elif how == "a pipe":
            os.mkfifo(path)
        elif how == "a dangling link":
            path.symlink_to("nowhere")
        elif how == "a link in a circle":
            path.symlink_to(name)
        elif how == "a device":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(data)
        return ["prepare", *PLAIN, "data.source=in", "data.document=line"]

    return make


def _damaged(source: random.Random, data: bytes) -> tuple[str, bytes]:
    how = source.choice(DAMAGES)
    at = source.randrange(max(1, len(data)))
    if how == "cut":
        return how, data[:at]
    if how == "bits":
        flipped = bytearray(data)
        for _ in range(source.choice([1, 1, 3])):
            flipped[source.randrange(len(flipped))] ^= 1 << source.randrange(8)
        return how, bytes(flipped)
    if how == "bytes":
        return how, data[:at] + bytes(source.randrange(256) for _ in range(source.randrange(1, 9))) + data[at:]
    return how, {"twice": data * 2, "tail": data + b"tail", "empty": b"", "zeros": bytes(len(data))}.get(how, data)


def _plain(source: random.Random, kind: str) -> bytes:
    if kind == "txt":
        lines = [
            source.choice([text, text, text.upper(), "", " ", f"{text}\r", "\x0c" + text]) for text in texts(source, 20)
        ]
        return "\n".join(lines).encode()
    return "".join(_line(source, text) for text in texts(source, 20)).encode("utf-8", "surrogatepass")


def _line(source: random.Random, text: str) -> str:
    if source.random() < 0.9:
        return json.dumps({"text": text, "id": source.randrange(9)}) + "\n"
    return source.choice(ODD_LINES).replace("TEXT", text) + "\n"


def _parquet(source: random.Random) -> bytes:
    some = texts(source, 20)
    column: Any = source.choice([
        pa.array(some), pa.array(some, pa.large_string()), pa.array(some).dictionary_encode(),
        pa.array([text.encode() for text in some]), pa.array([None, *some[1:]]), pa.array(list(range(20))),
        pa.array([[text] for text in some]), pa.array([{"a": text} for text in some]),
    ])  # fmt: skip
    names = source.choice([["text"], ["text"], ["text", "text"], ["other"], ["text", "n"]])
    table = pa.Table.from_arrays([column] * len(names), names=names)
    sink = pa.BufferOutputStream()
    kind = source.choice(["snappy", "zstd", "gzip", "none"])
    pa.parquet.write_table(table, sink, compression=kind, row_group_size=source.choice([1, 7, 100]))
    return bytes(sink.getvalue())


def read_files(folder: Path) -> list[str] | None:
    """The documents of all files, in order; None where a file has something that is not a document."""
    found: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        try:
            found += _read(path)
        except Exception:  # whatever the libraries raise of damaged files
            return None
    return found


def _read(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        table = pa.parquet.read_table(path)
        (place,) = (number for number, name in enumerate(table.column_names) if name == "text")
        values = table.column(place).to_pylist()
        return [value.decode() if isinstance(value, bytes) else _text(value) for value in values]
    packing = path.suffix if path.suffix in PACKINGS else ""
    text = PACKINGS[packing][1](path.read_bytes()).decode("utf-8-sig")
    if ".jsonl" in path.name:
        return [_text(json.loads(line)["text"]) for line in text.split("\n") if line.strip()]
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _judge_data(folder: Path, result: Result) -> str:
    wanted = read_files(folder / "in")
    return "taken, though a file holds what is no document" if wanted is None else judge_rows(folder, wanted)


def judge_rows(folder: Path, wanted: list[str], plain: Tokenizer | None = None) -> str:
    """Whether the rows hold the documents as ids of the library, in order, but for those held out and dropped."""
    (manifest,) = (folder / "shards").glob("*/manifest.json")
    said, shards = json.loads(manifest.read_text()), manifest.parent
    held = {json.loads(line)["hash"] for line in (shards / "held_out.jsonl").read_text().split("\n") if line}
    tokenizer = Tokenizer.from_file(str(shards / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    given = plain or tokenizer
    given.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab()
    frame = {vocabulary[name] for name in ("[CLS]", "[SEP]", "[PAD]") if name in vocabulary}
    left = [given.encode(text, add_special_tokens=False).ids for text in wanted
            if text.strip() and hashlib.sha256(text.encode()).hexdigest() not in held]  # fmt: skip
    flat = np.concatenate([load_file(path)["tokens"].ravel() for path in sorted(shards.glob("shard-*"))])
    rows, document = [], []
    for token in flat.tolist():
        if token == vocabulary.get("[SEP]"):
            rows.append(document)
            document = []
        elif token not in frame:
            document.append(token)
    dropped = sum(one["documents"] for one in said["dropped"].values())
    empty = sum(not ids for ids in left)
    rest = iter(left)
    if any(ids not in rest for ids in rows):
        return "a row holds what is not in the files, or in another order"
    missing = len(left) - len(rows)
    return (
        "" if missing <= dropped + empty else f"{missing} documents are missing, and {dropped} are said to be dropped"
    )


def tokenizer_of(source: random.Random) -> dict[str, Any]:
    """A small WordPiece tokenizer as JSON, trained on the made-up words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts(source, 80), trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def tokenizers(source: random.Random, count: int) -> Iterator[Case]:
    """Tokenizers with edited vocabularies, roles, fields and bits, on a sound file."""
    base = tokenizer_of(source)
    good = texts(source, 60)
    for _ in range(count):
        content = json.loads(json.dumps(base))
        how = source.choice(list(EDITS))
        EDITS[how](source, content)
        data = json.dumps(content, ensure_ascii=source.random() < 0.5).encode()
        if how == "bits":
            flipped = bytearray(data)
            flipped[source.randrange(len(flipped))] ^= 1 << source.randrange(8)
            data = bytes(flipped)
        yield Case("tokenizers", f"tokenizer, {how}", _tokenizer_maker(data, good), _judge_tokenizer(good))


def _tokenizer_maker(data: bytes, good: list[str]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "mine.json").write_bytes(data)
        (folder / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in good))
        return ["prepare", *PLAIN, "data.source=good.jsonl", "tokenizer=mine.json"]

    return make


def _judge_tokenizer(good: list[str]) -> Callable[[Path, Result], str]:
    def judge(folder: Path, _: Result) -> str:
        from cram.data.verify import verify

        plain = Tokenizer.from_file(str(folder / "mine.json"))
        plain.no_truncation()
        plain.no_padding()
        (manifest,) = (folder / "shards").glob("*/manifest.json")
        verify(manifest.parent)
        return judge_rows(folder, good, plain)

    return judge


def _swap(source: random.Random, content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    one, other = source.sample(list(vocabulary), 2)
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def _set_id(source: random.Random, content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    name = source.choice(list(vocabulary))
    vocabulary[name] = source.choice(
        [0, 1, 2, 3, 4, len(vocabulary), 10**6, 2**32, -1, 1.5, "7", None, vocabulary[name]]
    )


def _drop(source: random.Random, content: dict[str, Any]) -> None:
    del content["model"]["vocab"][source.choice(list(content["model"]["vocab"]))]


def _drop_special(source: random.Random, content: dict[str, Any]) -> None:
    token = source.choice(content["added_tokens"])
    content["added_tokens"].remove(token)
    if source.random() < 0.5:
        content["model"]["vocab"].pop(token["content"], None)


def _field(source: random.Random, content: dict[str, Any]) -> None:
    where = source.choice([content, content["model"], content["added_tokens"][0]])
    name = source.choice(list(where))
    where[name] = source.choice([None, 0, "x", [], {}, True, 1e9, {"type": "x"}])


def _added(source: random.Random, content: dict[str, Any]) -> None:
    token = dict(source.choice(content["added_tokens"]))
    token["content"] = source.choice(["[NEW]", "ba", "[PAD]", "", " ", "[MASK]"])
    token["id"] = source.choice([0, 5, 119, 120, 121, 10**6, token["id"]])
    content["added_tokens"].append(token)


EDITS: dict[str, Callable[[random.Random, dict[str, Any]], None]] = {
    "sound": lambda *_: None,
    "bits": lambda *_: None,
    "two pieces swapped": _swap,
    "an id set": _set_id,
    "a piece left out": _drop,
    "a special token left out": _drop_special,
    "a field of another type": _field,
    "a token added": _added,
    "truncation": lambda _, content: content.update(
        truncation={"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    ),
    "padding": lambda _, content: content.update(
        padding={"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "[PAD]"}
    ),
}  # fmt: skip
GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"data": data_files, "tokenizers": tokenizers}
