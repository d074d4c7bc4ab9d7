"""Give the special tokens of a loaded tokenizer.json their roles.

The token of a role is named by a key, by the files that `transformers` writes beside the tokenizer, or by its own name,
in this order. If a tokenizer pads with a token that has another role, as GPT-2 does, a token for padding is added to
its vocabulary.
"""

import json
from dataclasses import asdict
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from cram.config.data import SpecialConfig
from cram.data.special_tokens import NAMES, first_in, read_entries, read_roles, write_roles
from cram.errors import CramError

# What `transformers` writes beside a tokenizer.json, and the keys there that name the token of a role.
FILES = ("tokenizer_config.json", "special_tokens_map.json")
FILE_KEYS = {
    "pad": ("pad_token",),
    "cls": ("cls_token", "bos_token"),
    "sep": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}
ADDED_PAD = "<pad>"


def assign_roles(tokenizer: Tokenizer, path: Path, config: SpecialConfig) -> None:
    """Find the special tokens of a tokenizer.json, add those that it lacks, and frame its encodings by them.

    Args:
        tokenizer: the loaded tokenizer, which is changed.
        path: the tokenizer.json.
        config: the tokens that the user has named.

    Raises:
        CramError: if two pieces have one id, no token ends a document, the ids have gaps where a token must be added,
            or a token with a role occurs in texts or cannot be part of a frame.
    """
    named = {role: token for role, token in asdict(config).items() if token}
    _check_ids(tokenizer, path)
    if read_roles(tokenizer) and not named:
        _check_entries(tokenizer, path)
        return
    _add_tokens(tokenizer, [token for token in named.values() if token not in tokenizer.get_vocab()], path)
    vocabulary = tokenizer.get_vocab()
    names_in_files = _read_names_in_files(path)
    roles = {
        role: named.get(role) or first_in([*names_in_files.get(role, []), *names], vocabulary)
        for role, names in NAMES.items()
    }
    roles["unk"] = _find_unknown(tokenizer, path)
    if not roles["sep"]:
        raise CramError(
            f"tokenizer={path}: no token ends a document, none of {' '.join(NAMES['sep'])} is in its vocabulary; "
            "name one with special.sep=TOKEN, which is added if it is missing."
        )
    _separate_roles(roles, named, vocabulary)
    if not roles["pad"]:
        _add_tokens(tokenizer, [ADDED_PAD], path)
        roles["pad"] = ADDED_PAD
    for role, token in roles.items():
        if token and role != "unk":
            _check_token(tokenizer, role, token, path)
    write_roles(tokenizer, roles)


def _check_ids(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse a vocabulary in which two pieces have one id: the id would not tell which piece a text held."""
    owners: dict[int, str] = {}
    for token, number in sorted(tokenizer.get_vocab().items()):
        if (other := owners.setdefault(number, token)) != token:
            raise CramError(
                f"tokenizer={path}: {other!r} and {token!r} have the same id {number}; "
                "give a tokenizer.json in which each piece has an id of its own."
            )


def _check_entries(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse a post-processor of ours that names tokens which are not in the vocabulary."""
    entries = read_entries(tokenizer).values()
    mismatched = any([tokenizer.token_to_id(token) for token in entry["tokens"]] != entry["ids"] for entry in entries)
    roles = read_roles(tokenizer)
    if mismatched or not roles["pad"] or not roles["sep"]:
        raise CramError(
            f"tokenizer={path}: its post_processor names special tokens that its vocabulary does not have; "
            "take the file as cram has written it, or name the tokens with special.sep=, special.pad= and so on."
        )


def _check_token(tokenizer: Tokenizer, role: str, token: str, path: Path) -> None:
    """Refuse a token that cannot have a role."""
    if token.startswith("$") or ":" in token:
        raise CramError(f"special.{role}={token!r} is not a valid name: it must not begin with $ or hold a colon.")
    number = tokenizer.token_to_id(token)
    added_tokens = tokenizer.get_added_tokens_decoder()
    is_special = number in added_tokens and added_tokens[number].special
    if is_special or any(token in names for names in NAMES.values()):
        return
    # WordPiece marks pieces inside a word by ##; SentencePiece and byte-level models mark the beginning of a word.
    bare = token.removeprefix("##").lstrip("▁Ġ")
    if len(bare) < 2 or bare.isalnum():
        raise CramError(
            f"special.{role}={token!r}: tokenizer={path} makes texts of this piece; "
            "name a token that does not occur in texts, or a new one, which is added."
        )


def _read_names_in_files(path: Path) -> dict[str, list[str]]:
    """Return the tokens that the files beside a tokenizer.json name for each role; damaged files are ignored."""
    names: dict[str, list[str]] = {}
    for name in FILES:
        try:
            content = json.loads((path.parent / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        for role, keys in FILE_KEYS.items():
            for key in keys:
                token = content.get(key) if isinstance(content, dict) else None
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    names.setdefault(role, []).append(token)
    return names


def _find_unknown(tokenizer: Tokenizer, path: Path) -> str | None:
    """Return the token that the model itself gives for unknown text; None if it gives none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    token: str | None = model.get("unk_token")
    if token and token not in tokenizer.get_vocab() and model["type"] in ("WordPiece", "WordLevel"):
        raise CramError(f"tokenizer={path}: {token}, which it gives for unknown words, is not in its vocabulary.")
    return token if token in tokenizer.get_vocab() else None


def _separate_roles(roles: dict[str, str | None], named: dict[str, str], vocabulary: dict[str, int]) -> None:
    """Leave each token one role. The end of a document comes first; padding gets another of its usual names, if any."""
    for role in ("pad", "cls", "unk", "mask"):
        others = {roles[other] for other in NAMES if other != role}
        if roles[role] not in others:
            continue
        if role in named:
            raise CramError(f"special.{role}={named[role]} has another role already; give each role its own token.")
        roles[role] = None
        if role == "pad":
            roles["pad"] = first_in([name for name in NAMES["pad"] if name not in others], vocabulary)


def _add_tokens(tokenizer: Tokenizer, tokens: list[str], path: Path) -> None:
    """Add special tokens behind the vocabulary."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    ids = list(tokenizer.get_vocab().values())
    if len(set(ids)) < len(ids):
        raise CramError(
            f"tokenizer={path}: its ids have gaps, so {' '.join(tokens)} cannot be added; "
            "give a tokenizer.json that has the token, or whose ids have no gaps."
        )
