"""Cases of the fuzz proof: tokenizers.

What a preparation has accepted is read again here with `tokenizers` alone: the rows must hold the documents of the
files, but for those held out and dropped, as the ids that the library gives.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from proofs.fuzz_run import Case, Result

SYLLABLES = ("ba", "re", "mi", "ton", "sul", "ke", "dor", "van", "li", "po", "gra", "nes", "hu", "fi", "za", "mer")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
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
GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"tokenizers": tokenizers}
