"""Cases of the fuzz proof: odd and damaged tokenizers.

If a preparation accepts a tokenizer, its rows are compared with the ids that the library `tokenizers` gives: they must
be those of the documents in the file, except for documents that were held out or dropped.
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

from proofs.fuzz_data import NO_FILTERS
from proofs.fuzz_run import Case, Result

SYLLABLES = ("ba", "re", "mi", "ton", "sul", "ke", "dor", "van", "li", "po", "gra", "nes", "hu", "fi", "za", "mer")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SETTINGS = [
    "recipe=bert_demo",
    "data.dir=shards",
    "data.seq_len=32",
    "data.held_out=0.05",
    "data.processes=1",
    "wordpiece.vocab_size=128",
    *NO_FILTERS,
]
# Model, trainer and pre-tokenizer of each kind of tokenizer.
KINDS: tuple[tuple[Any, Any, Any], ...] = (
    (models.WordPiece, trainers.WordPieceTrainer, pre_tokenizers.BertPreTokenizer),
    (models.BPE, trainers.BpeTrainer, pre_tokenizers.ByteLevel),
    (models.Unigram, trainers.UnigramTrainer, pre_tokenizers.Metaspace),
    (models.WordLevel, trainers.WordLevelTrainer, pre_tokenizers.Whitespace),
)
SPECIAL_NAMES = (SPECIAL, SPECIAL, ["<pad>", "<unk>", "<s>", "</s>", "<mask>"], ["<|endoftext|>", "[UNK]"])
ROLES = ("pad", "unk", "cls", "sep", "mask")
ODD_TOKENS = ("[SEP]", "[PAD]", "[NEW]", "ba", "</s>", "", " ", "##a", "\x00", "é", "[MASK]", "null", "a b")


def make_texts(source: random.Random, count: int = 60) -> list[str]:
    """Make documents of invented words, all different."""
    return [" ".join(_make_word(source) for _ in range(source.randrange(8, 40))) for _ in range(count)]


def _make_word(source: random.Random) -> str:
    return "".join(source.choices(SYLLABLES, k=source.randrange(1, 4)))


def read_roles(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of the special tokens by role, from the template of a prepared tokenizer.json."""
    entries = json.loads(tokenizer.to_str())["post_processor"]["special_tokens"]
    return {name.removeprefix("role:"): entry["ids"][0] for name, entry in entries.items() if name.startswith("role:")}


def judge_rows(folder: Path, texts: list[str], library: Tokenizer) -> str:
    """Compare the rows with the texts. Returns the problem, or "".

    Args:
        folder: holds the folder `shards`.
        texts: of the documents.
        library: the tokenizer as it was given.
    """
    (manifest,) = (folder / "shards").glob("*/manifest.json")
    shards = manifest.parent
    held_out = {json.loads(line)["hash"] for line in (shards / "held_out.jsonl").read_text().split("\n") if line}
    roles = read_roles(Tokenizer.from_file(str(shards / "tokenizer.json")))
    controls = {number for role, number in roles.items() if role != "unk"}
    library.encode_special_tokens = True
    expected = [
        [token for token in library.encode(text, add_special_tokens=False).ids if token not in controls]
        for text in texts
        if text.strip() and hashlib.sha256(text.encode()).hexdigest() not in held_out
    ]
    documents = _read_documents(shards, roles["sep"], controls)
    in_order = iter(expected)
    if any(document not in in_order for document in documents):
        return "a row holds a text that is not in the files, or another order"
    dropped = sum(counts["documents"] for counts in json.loads(manifest.read_text())["dropped"].values())
    empty = sum(not ids for ids in expected)
    missing = len(expected) - len(documents)
    if missing > dropped + empty:
        return f"{missing} documents are missing, and {dropped} are reported as dropped"
    return ""


def _read_documents(shards: Path, separator: int, controls: set[int]) -> list[list[int]]:
    """The ids of each document in the shards, without control tokens."""
    documents: list[list[int]] = []
    document: list[int] = []
    tokens = np.concatenate([load_file(path)["tokens"].ravel() for path in sorted(shards.glob("shard-*"))])
    for token in tokens.tolist():
        if token == separator:
            documents.append(document)
            document = []
        elif token not in controls:
            document.append(token)
    return documents


def train_tokenizers(source: random.Random) -> list[dict[str, Any]]:
    """Train small tokenizers of every kind, with several names of the special tokens. Returns them as JSON."""
    texts, trained = make_texts(source, 80), []
    for kind, trainer, split in KINDS:
        for special in SPECIAL_NAMES:
            tokenizer = Tokenizer(kind(unk_token=special[1]) if kind is not models.Unigram else kind())
            tokenizer.pre_tokenizer = split()
            tokenizer.normalizer = source.choice([normalizers.BertNormalizer(), normalizers.NFKC()])
            more = {"unk_token": special[1]} if kind is models.Unigram else {}
            tokenizer.train_from_iterator(
                texts, trainer(vocab_size=120, special_tokens=special, show_progress=False, **more)
            )
            trained.append(json.loads(tokenizer.to_str()))
            if len(special) == len(SPECIAL):
                trained.append(trained[-1] | {"post_processor": _prepared_template(special)})
    return trained


def _prepared_template(special: list[str]) -> dict[str, Any]:
    """The template that a preparation writes into tokenizer.json, which names the roles of the special tokens."""
    names = {special[2]: 2, special[3]: 3} | {f"role:{role}": number for number, role in enumerate(ROLES)}
    entries = {name: {"id": name, "ids": [number], "tokens": [special[number]]} for name, number in names.items()}
    frame = [{"SpecialToken": {"id": special[2], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    frame.append({"SpecialToken": {"id": special[3], "type_id": 0}})
    return {"type": "TemplateProcessing", "single": frame, "pair": frame[1:], "special_tokens": entries}


def make_tokenizers(source: random.Random, count: int) -> Iterator[Case]:
    """Yield tokenizers with edited vocabularies, roles, fields and bits, each with an ordinary text file."""
    trained = train_tokenizers(source)
    texts = make_texts(source, 60)
    texts[3] += " [SEP] <s> [PAD] </s> [MASK] <pad> <|endoftext|> [CLS]"
    for _ in range(count):
        content = json.loads(json.dumps(source.choice(trained)))
        kind, edit = content["model"]["type"], source.choice(list(EDITS))
        EDITS[edit](source, content)
        data = json.dumps(content, ensure_ascii=source.random() < 0.5).encode()
        if edit == "bits":
            flipped = bytearray(data)
            flipped[source.randrange(len(flipped))] ^= 1 << source.randrange(8)
            data = bytes(flipped)
        words, tokenizer_config = [], b""
        if source.random() < 0.2:
            words = [f"special.{source.choice(list(ROLES))}={source.choice(ODD_TOKENS)}"]
        elif source.random() < 0.1:
            role = source.choice(["sep_token", "eos_token", "cls_token", "bos_token", "pad_token", "mask_token"])
            values = [{role: source.choice(ODD_TOKENS)}, {role: 3}, {role: {"content": 3}}, [], 3, "x"]
            text = json.dumps(source.choice(values))
            tokenizer_config = source.choice([text, text[:-1], ""]).encode()
        yield Case(
            "tokenizers",
            f"{kind} tokenizer, {edit} {' '.join(words)} {tokenizer_config.decode()}",
            partial(_make, data, texts, words, tokenizer_config),
            partial(_judge, texts, words),
        )


def _make(data: bytes, texts: list[str], words: list[str], tokenizer_config: bytes, folder: Path) -> list[str]:
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "good.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    if tokenizer_config:
        (folder / "tokenizer_config.json").write_bytes(tokenizer_config)
    return ["prepare", *SETTINGS, "data.source=good.jsonl", "tokenizer=tokenizer.json", *words]


def _judge(texts: list[str], words: list[str], folder: Path, _result: Result) -> str:
    from cram.data.inspect.verify import verify_shards

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    ids = sorted(library.get_vocab().values())
    if len(set(ids)) < len(ids):
        return "two pieces have one id, and no message says so"
    (manifest,) = (folder / "shards").glob("*/manifest.json")
    verify_shards(manifest.parent)
    stored = Tokenizer.from_file(str(manifest.parent / "tokenizer.json"))
    for role, _, token in (word.removeprefix("special.").partition("=") for word in words):
        used = stored.id_to_token(read_roles(stored)[role])
        if token not in ("", "null") and used != token:
            return f"special.{role}={token!r} was given, and {used!r} is used"
    return judge_rows(folder, texts, library)


def _swap(source: random.Random, content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    first, second = source.sample(list(vocabulary) if isinstance(vocabulary, dict) else range(len(vocabulary)), 2)
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


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


def _truncation(_: random.Random, content: dict[str, Any]) -> None:
    content["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}


def _padding(_: random.Random, content: dict[str, Any]) -> None:
    content["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }


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
    "truncation": _truncation,
    "padding": _padding,
}
GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"tokenizers": make_tokenizers}
