"""What the special tokens of a tokenizer are for, whatever their names are: ours, BERT's, RoBERTa's, GPT-2's, T5's ...

A document is framed as `cls text sep`, or as `text sep` where the vocabulary has no token that begins one. Padding has
an id of its own always, so that it can be told from the ends of documents: where a tokenizer pads with another special
token, as GPT-2 does, a token is added behind its vocabulary.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from cram.config.data import VOCAB_MULTIPLE, SpecialConfig
from cram.errors import CramError

# The names that are looked for where neither a key nor a file says which token has the role; the first one counts.
NAMES = {
    "pad": ("[PAD]", "<pad>", "<|padding|>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>", "<bos>", "<|begin_of_text|>"),
    "sep": ("[SEP]", "</s>", "<sep>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}
# The same in what `transformers` writes beside a tokenizer.json.
FILES = ("tokenizer_config.json", "special_tokens_map.json")
FILE_KEYS = {
    "pad": ("pad_token",),
    "cls": ("cls_token", "bos_token"),
    "sep": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}
ADDED_PAD = "<pad>"
# Our tokenizers name the tokens of the roles in their post-processor, so that one file says it all.
ENTRY = "role:"


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the special tokens, None for a role that no token has.

    pad: fills rows. unk: stands for text that the vocabulary lacks. cls: begins a document. sep: ends one. mask: is
    shown instead of a hidden token. reserved: all other ids below `vocabulary_size` that no text is made of: special
    tokens without a role, and ids without a token.
    """

    pad: int
    unk: int | None
    cls: int | None
    sep: int
    mask: int | None
    reserved: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "SpecialTokens":
        """Look them up in a tokenizer of `load_tokenizer` or `train_tokenizer`."""
        vocabulary = tokenizer.get_vocab()
        roles = _entries(tokenizer) or {role: _first(names, vocabulary) for role, names in NAMES.items()}
        ids = {role: vocabulary.get(token) if token else None for role, token in roles.items()}
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        unused = set(range(vocabulary_size(tokenizer))) - set(vocabulary.values())
        assert ids["pad"] is not None and ids["sep"] is not None, "a tokenizer that load_tokenizer has not seen"
        return cls(**ids, reserved=tuple(sorted((special | unused) - set(ids.values()))))  # type: ignore[arg-type]

    def ids(self) -> list[int]:
        """All of them, in ascending order: the ids that are never predicted."""
        roles = (self.pad, self.unk, self.cls, self.sep, self.mask)
        return sorted({*(number for number in roles if number is not None), *self.reserved})

    @property
    def frame(self) -> int:
        """How many tokens of a document are not of its text."""
        return 1 if self.cls is None else 2

    def controls(self) -> set[int]:
        """The tokens that mean something in a row, and must not come from a text."""
        return {number for number in (self.pad, self.cls, self.sep, self.mask) if number is not None}

    def names(self, tokenizer: Tokenizer) -> dict[str, str]:
        """The tokens by the names of their roles, those that there are."""
        roles = {role: getattr(self, role) for role in NAMES}
        return {role: str(tokenizer.id_to_token(number)) for role, number in roles.items() if number is not None}


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Rows of the embedding: the largest id and one, up to a multiple of 64. Ids may have holes."""
    return -(-(max(tokenizer.get_vocab().values()) + 1) // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def give_roles(tokenizer: Tokenizer, path: Path, said: SpecialConfig) -> None:
    """Find the special tokens of a tokenizer.json, add those it lacks and frame what it encodes by them.

    A role is given by a key, by the files that `transformers` writes beside the tokenizer, or by the token's name.

    Errors: CramError where two pieces have one id, no token ends a document, the ids have holes where a token must be
    added, or a token with a role is one that texts are made of or cannot be part of a frame.
    """
    named = {role: token for role, token in asdict(said).items() if token}
    _check_ids(tokenizer, path)
    if (entries := _entries(tokenizer)) and not named:
        _check_entries(tokenizer, entries, path)
        return
    _add(tokenizer, [token for token in named.values() if token not in tokenizer.get_vocab()], path)
    vocabulary = tokenizer.get_vocab()
    beside = _beside(path)
    roles = {
        role: named.get(role) or _first([*beside.get(role, []), *names], vocabulary) for role, names in NAMES.items()
    }
    roles["unk"] = _unknown(tokenizer, path)
    if not roles["sep"]:
        raise CramError(
            f"tokenizer={path}: no token ends a document, none of {' '.join(NAMES['sep'])} is in its vocabulary; "
            "name one with special.sep=TOKEN, it is added where it is not there"
        )
    _separate(roles, named, vocabulary)
    if not roles["pad"]:
        _add(tokenizer, [ADDED_PAD], path)
        roles["pad"] = ADDED_PAD
    for role, token in roles.items():
        if token and role != "unk":
            _check_token(tokenizer, role, token, path)
    set_roles(tokenizer, roles)


def set_roles(tokenizer: Tokenizer, roles: Mapping[str, str | None]) -> None:
    """Frame what `encode` gives by the tokens of some roles, and name them all in the post-processor."""
    entries = {ENTRY + role: token for role, token in roles.items() if token}
    set_frame(tokenizer, roles["cls"], roles["sep"], entries)


def set_frame(tokenizer: Tokenizer, cls: str | None, sep: str | None, entries: dict[str, str] | None = None) -> None:
    """Make `encode` give `cls text sep`, or less where a token is None; `entries`: names of tokens that are kept."""
    used = {token: token for token in (cls, sep) if token}
    special = [
        {"id": name, "ids": [tokenizer.token_to_id(token)], "tokens": [token]}
        for name, token in (used | (entries or {})).items()
    ]
    single = [*([f"{cls}:0"] if cls else []), "$A:0", *([f"{sep}:0"] if sep else [])]
    second = ["$B:1", *([f"{sep}:1"] if sep else [])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=single + second, special_tokens=special
    )


def written_controls(tokenizer: Tokenizer, special: SpecialTokens) -> set[int]:
    """The control tokens that a text gives by writing their names although it is encoded as text; none for most.

    A Unigram model, and one of whole words, finds them in its vocabulary as it finds any other piece.
    """
    tokenizer.encode_special_tokens = True
    controls = special.controls()
    names = [str(tokenizer.id_to_token(number)) for number in controls]
    texts = [" a ".join(names), *names]
    return controls & {number for text in texts for number in tokenizer.encode(text, add_special_tokens=False).ids}


def text_places(encoding: Any, controls: set[int]) -> list[int]:
    """The places of an encoding's tokens but those of `controls` that the text has written."""
    pairs = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    return [place for place, (number, added) in enumerate(pairs) if added or number not in controls]


def _entries(tokenizer: Tokenizer) -> dict[str, str | None]:
    """The roles that the post-processor names; empty where it is not ours."""
    if tokenizer.post_processor is None:
        return {}
    said: dict[str, Any] = json.loads(tokenizer.post_processor.__getstate__())
    special = said.get("special_tokens")
    if not isinstance(special, dict) or f"{ENTRY}sep" not in special:
        return {}
    return {role: special[ENTRY + role]["tokens"][0] if ENTRY + role in special else None for role in NAMES}


def _check_ids(tokenizer: Tokenizer, path: Path) -> None:
    """Errors: CramError where two pieces have one id, of which a text's tokens would not tell which they are."""
    owners: dict[int, str] = {}
    for token, number in sorted(tokenizer.get_vocab().items()):
        if (other := owners.setdefault(number, token)) != token:
            raise CramError(
                f"tokenizer={path}: {other!r} and {token!r} have the same id {number}; "
                "give a tokenizer.json in which each piece has an id of its own"
            )


def _check_entries(tokenizer: Tokenizer, entries: dict[str, str | None], path: Path) -> None:
    """Errors: CramError where our own post-processor names tokens that are not the vocabulary's."""
    assert tokenizer.post_processor is not None
    framed = json.loads(tokenizer.post_processor.__getstate__())["special_tokens"].values()
    wrong = [one for one in framed if [tokenizer.token_to_id(token) for token in one["tokens"]] != one["ids"]]
    if wrong or not entries["pad"] or not entries["sep"]:
        raise CramError(
            f"tokenizer={path}: its post_processor names special tokens that its vocabulary does not have; "
            "take the file as cram has written it, or name the tokens with special.sep=, special.pad= and so on"
        )


def _check_token(tokenizer: Tokenizer, role: str, token: str, path: Path) -> None:
    """Errors: CramError for a token that cannot have a role."""
    if token.startswith("$") or ":" in token:
        raise CramError(f"special.{role}={token!r} is not a valid name: it must not begin with $ or hold a colon")
    number = tokenizer.token_to_id(token)
    marked = number in (known := tokenizer.get_added_tokens_decoder()) and known[number].special
    if marked or any(token in names for names in NAMES.values()):
        return
    # As WordPiece, SentencePiece and byte-level models write what goes on with a word, or begins one.
    bare = token.removeprefix("##").lstrip("▁Ġ")
    if len(bare) < 2 or bare.isalnum():
        raise CramError(
            f"special.{role}={token!r}: tokenizer={path} makes texts of this piece; "
            "name a token that no text is made of, or one that is not there, which is added"
        )


def _first(names: list[str] | tuple[str, ...], vocabulary: dict[str, int]) -> str | None:
    return next((name for name in names if name in vocabulary), None)


def _beside(path: Path) -> dict[str, list[str]]:
    """What the files beside a tokenizer.json call the tokens of each role; damaged ones say nothing."""
    found: dict[str, list[str]] = {}
    for name in FILES:
        try:
            said = json.loads((path.parent / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        for role, keys in FILE_KEYS.items():
            for key in keys:
                token = said.get(key) if isinstance(said, dict) else None
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    found.setdefault(role, []).append(token)
    return found


def _unknown(tokenizer: Tokenizer, path: Path) -> str | None:
    """The token that the model itself gives for unknown text; None where it gives none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    token = model.get("unk_token")
    if token and token not in tokenizer.get_vocab() and model["type"] in ("WordPiece", "WordLevel"):
        raise CramError(f"tokenizer={path}: {token}, which it gives for unknown words, is not in its vocabulary")
    return token if token in tokenizer.get_vocab() else None


def _separate(roles: dict[str, str | None], named: dict[str, str], vocabulary: dict[str, int]) -> None:
    """Leave each token one role: the end of a document first, and for padding a name of its own, if there is one."""
    for role in ("pad", "cls", "unk", "mask"):
        others = {roles[other] for other in NAMES if other != role}
        if roles[role] not in others:
            continue
        if role in named:
            raise CramError(f"special.{role}={named[role]} has another role already; give each role a token of its own")
        roles[role] = None
        if role == "pad":
            roles["pad"] = _first([name for name in NAMES["pad"] if name not in others], vocabulary)


def _add(tokenizer: Tokenizer, tokens: list[str], path: Path) -> None:
    """Add special tokens behind the vocabulary."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    ids = list(tokenizer.get_vocab().values())
    if len(set(ids)) < len(ids):
        raise CramError(
            f"tokenizer={path}: its ids have holes, so {' '.join(tokens)} cannot be added; "
            "give a tokenizer.json that has the token, or whose ids are dense"
        )
