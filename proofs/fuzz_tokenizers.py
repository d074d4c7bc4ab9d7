"""Cases of the fuzz proof: tokenizers.

What a preparation has accepted is read again here with `tokenizers` alone: the rows must hold the documents of the
files, but for those held out and dropped, as the ids that the library gives.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
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


KINDS: tuple[tuple[Any, Any, Any], ...] = (
    (models.WordPiece, trainers.WordPieceTrainer, pre_tokenizers.BertPreTokenizer),
    (models.BPE, trainers.BpeTrainer, pre_tokenizers.ByteLevel),
    (models.Unigram, trainers.UnigramTrainer, pre_tokenizers.Metaspace),
    (models.WordLevel, trainers.WordLevelTrainer, pre_tokenizers.Whitespace),
)
NAMES = (SPECIAL, SPECIAL, ["<pad>", "<unk>", "<s>", "</s>", "<mask>"], ["<|endoftext|>", "[UNK]"])
ROLES = ("pad", "unk", "cls", "sep", "mask")
SAID = ("[SEP]", "[PAD]", "[NEW]", "ba", "</s>", "", " ", "##a", "\x00", "é", "[MASK]", "null", "a b")


def texts(source: random.Random, count: int = 60) -> list[str]:
    """Documents of made-up words, all different."""
    return [" ".join(_word(source) for _ in range(source.randrange(8, 40))) for _ in range(count)]


def _word(source: random.Random) -> str:
    return "".join(source.choices(SYLLABLES, k=source.randrange(1, 4)))


def roles_of(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of the special tokens by their roles, as the template of a prepared tokenizer.json names them."""
    said = json.loads(tokenizer.to_str())["post_processor"]["special_tokens"]
    return {name.removeprefix("role:"): one["ids"][0] for name, one in said.items() if name.startswith("role:")}


def judge_rows(folder: Path, wanted: list[str], plain: Tokenizer | None = None) -> str:
    """Whether the rows hold the documents as ids of the library, in order, but for those held out and dropped."""
    (manifest,) = (folder / "shards").glob("*/manifest.json")
    said, shards = json.loads(manifest.read_text()), manifest.parent
    held = {json.loads(line)["hash"] for line in (shards / "held_out.jsonl").read_text().split("\n") if line}
    tokenizer = Tokenizer.from_file(str(shards / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    given = plain or tokenizer
    given.encode_special_tokens = True
    roles = roles_of(tokenizer)
    controls = {number for role, number in roles.items() if role != "unk"}
    left = [
        [one for one in given.encode(text, add_special_tokens=False).ids if one not in controls]
        for text in wanted
        if text.strip() and hashlib.sha256(text.encode()).hexdigest() not in held
    ]
    flat = np.concatenate([load_file(path)["tokens"].ravel() for path in sorted(shards.glob("shard-*"))])
    rows, document = [], []
    for token in flat.tolist():
        if token == roles["sep"]:
            rows.append(document)
            document = []
        elif token not in controls:
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


def bases(source: random.Random) -> list[dict[str, Any]]:
    """Small tokenizers of every kind as JSON, trained on the made-up words, their special tokens of several names."""
    some, found = texts(source, 80), []
    for kind, trainer, split in KINDS:
        for special in NAMES:
            tokenizer = Tokenizer(kind(unk_token=special[1]) if kind is not models.Unigram else kind())
            tokenizer.pre_tokenizer = split()
            tokenizer.normalizer = source.choice([normalizers.BertNormalizer(), normalizers.NFKC()])
            more = {"unk_token": special[1]} if kind is models.Unigram else {}
            tokenizer.train_from_iterator(
                some, trainer(vocab_size=120, special_tokens=special, show_progress=False, **more)
            )
            found.append(json.loads(tokenizer.to_str()))
            if len(special) == len(SPECIAL):
                found.append(found[-1] | {"post_processor": _written(special)})
    return found


def _written(special: list[str]) -> dict[str, Any]:
    """The template of a tokenizer.json that a preparation has written, in which the roles have names."""
    names = {special[2]: 2, special[3]: 3} | {f"role:{role}": number for number, role in enumerate(ROLES)}
    entries = {name: {"id": name, "ids": [number], "tokens": [special[number]]} for name, number in names.items()}
    frame = [{"SpecialToken": {"id": special[2], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    frame.append({"SpecialToken": {"id": special[3], "type_id": 0}})
    return {"type": "TemplateProcessing", "single": frame, "pair": frame[1:], "special_tokens": entries}


def tokenizers(source: random.Random, count: int) -> Iterator[Case]:
    """Tokenizers with edited vocabularies, roles, fields and bits, on a sound file."""
    whole = bases(source)
    good = texts(source, 60)
    good[3] += " [SEP] <s> [PAD] </s> [MASK] <pad> <|endoftext|> [CLS]"
    for _ in range(count):
        content = json.loads(json.dumps(source.choice(whole)))
        kind, how = content["model"]["type"], source.choice(list(EDITS))
        EDITS[how](source, content)
        data = json.dumps(content, ensure_ascii=source.random() < 0.5).encode()
        if how == "bits":
            flipped = bytearray(data)
            flipped[source.randrange(len(flipped))] ^= 1 << source.randrange(8)
            data = bytes(flipped)
        words, beside = [], b""
        if source.random() < 0.2:
            words = [f"special.{source.choice(list(ROLES))}={source.choice(SAID)}"]
        elif source.random() < 0.1:
            role = source.choice(["sep_token", "eos_token", "cls_token", "bos_token", "pad_token", "mask_token"])
            beside = json.dumps(
                source.choice([{role: source.choice(SAID)}, {role: 3}, {role: {"content": 3}}, [], 3, "x"])
            )
            beside = source.choice([beside, beside[:-1], ""]).encode()
        about = f"{kind} tokenizer, {how} {' '.join(words)} {beside.decode()}"
        yield Case("tokenizers", about, partial(_make, data, good, words, beside), partial(_judge, good, words))


def _make(data: bytes, good: list[str], words: list[str], beside: bytes, folder: Path) -> list[str]:
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in good))
    if beside:
        (folder / "tokenizer_config.json").write_bytes(beside)
    return ["prepare", *PLAIN, "data.source=good.jsonl", "tokenizer=tokenizer.json", *words]


def _judge(good: list[str], words: list[str], folder: Path, _: Result) -> str:
    from cram.data.inspect.verify import verify_shards

    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    ids = sorted(plain.get_vocab().values())
    if len(set(ids)) < len(ids):
        return "two pieces have one id, and it was not said"
    (manifest,) = (folder / "shards").glob("*/manifest.json")
    verify_shards(manifest.parent)
    stored = Tokenizer.from_file(str(manifest.parent / "tokenizer.json"))
    for role, _, token in (word.removeprefix("special.").partition("=") for word in words):
        if token not in ("", "null") and stored.id_to_token(roles_of(stored)[role]) != token:
            return f"special.{role}={token!r} is {stored.id_to_token(roles_of(stored)[role])!r} in force"
    return judge_rows(folder, good, plain)


def _swap(source: random.Random, content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    one, other = source.sample(list(vocabulary) if isinstance(vocabulary, dict) else range(len(vocabulary)), 2)
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def _set_id(source: random.Random, content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    name = source.choice(list(vocabulary) if isinstance(vocabulary, dict) else range(len(vocabulary)))
    ids = [0, 1, 2, 3, 4, len(vocabulary), 10**6, 2**32, -1, 1.5, "7", None]
    vocabulary[name] = source.choice([*ids, vocabulary[name], ["ba", -1.0], ["[PAD]", 0.0], ["", 1e999]])


def _drop(source: random.Random, content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    del vocabulary[source.choice(list(vocabulary) if isinstance(vocabulary, dict) else range(len(vocabulary)))]


def _merges(source: random.Random, content: dict[str, Any]) -> None:
    merges = content["model"].setdefault("merges", [])
    merges.insert(source.randrange(len(merges) + 1), source.choice([["ba", "nowhere"], ["b", "a"], "b a", "b", 3, []]))


def _drop_special(source: random.Random, content: dict[str, Any]) -> None:
    token = source.choice(content["added_tokens"])
    content["added_tokens"].remove(token)
    if source.random() < 0.5 and isinstance(content["model"]["vocab"], dict):
        content["model"]["vocab"].pop(token["content"], None)


def _field(source: random.Random, content: dict[str, Any]) -> None:
    where = source.choice([content, content["model"], content["added_tokens"][0]])
    name = source.choice(list(where))
    where[name] = source.choice([None, 0, "x", [], {}, True, 1e9, {"type": "x"}])


def _template(source: random.Random, content: dict[str, Any]) -> None:
    entries = (content["post_processor"] or {}).get("special_tokens")
    if not entries:
        content["post_processor"] = source.choice([{}, [], {"type": "ByteLevel"}, {"type": "x"}, None])
        return
    name = source.choice(list(entries))
    where = source.choice([entries[name], entries])
    odd = [[], [3], [10**6], ["[SEP]"], ["nowhere"], None, 3, "x", {}]
    where[source.choice(list(where))] = source.choice(odd)


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
    "a merge": _merges,
    "a special token left out": _drop_special,
    "a field of another type": _field,
    "a token added": _added,
    "the template": _template,
    "truncation": lambda _, content: content.update(
        truncation={"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    ),
    "padding": lambda _, content: content.update(
        padding={"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "[PAD]"}
    ),
}  # fmt: skip
GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"tokenizers": tokenizers}
