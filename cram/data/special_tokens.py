"""What the special tokens of a tokenizer are for, whatever their names are: ours, BERT's, RoBERTa's, GPT-2's, T5's ...

A special token has one of five roles: pad, unk, cls, sep or mask. The roles are written into the tokenizer's
post-processor (`write_roles`), so that one tokenizer.json says everything, and read from there (`SpecialTokens.of`).

A document is framed as `cls text sep`, or as `text sep` if no token has the role cls. Padding always has an id of its
own, so that it differs from the end of a document.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer, processors

from cram.config.data import VOCAB_MULTIPLE

# The usual names of each role. If neither a key nor a file names the token, the first of these in the vocabulary is it.
NAMES = {
    "pad": ("[PAD]", "<pad>", "<|padding|>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>", "<bos>", "<|begin_of_text|>"),
    "sep": ("[SEP]", "</s>", "<sep>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}
ROLE_ENTRY = "role:"  # begins the post-processor's entry of a role


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the special tokens; None for a role that no token has.

    Attributes:
        pad: fills rows.
        unk: stands for text that the vocabulary lacks.
        cls: begins a document.
        sep: ends a document.
        mask: replaces a hidden token in the input.
        reserved: all other ids below `padded_vocabulary_size` that never come from text: special tokens without a role
            and ids without a token.
    """

    pad: int
    unk: int | None
    cls: int | None
    sep: int
    mask: int | None
    reserved: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "SpecialTokens":
        """Look up the special tokens of a tokenizer that `load_tokenizer` or `train_tokenizer` returned."""
        vocabulary = tokenizer.get_vocab()
        roles = read_roles(tokenizer) or {role: first_in(names, vocabulary) for role, names in NAMES.items()}
        ids = {role: vocabulary.get(token) if token else None for role, token in roles.items()}
        special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        unused = set(range(padded_vocabulary_size(tokenizer))) - set(vocabulary.values())
        pad, sep = ids["pad"], ids["sep"]
        assert pad is not None and sep is not None, "a tokenizer that load_tokenizer has not seen"
        reserved = tuple(sorted((special | unused) - set(ids.values())))
        return cls(pad, ids["unk"], ids["cls"], sep, ids["mask"], reserved)

    def ids(self) -> list[int]:
        """Return all these ids in ascending order. They are never predicted."""
        roles = (self.pad, self.unk, self.cls, self.sep, self.mask)
        return sorted({*(number for number in roles if number is not None), *self.reserved})

    @property
    def frame(self) -> int:
        """How many tokens of a document frame its text: [CLS], if there is one, and [SEP]."""
        return 1 if self.cls is None else 2

    def controls(self) -> set[int]:
        """Return the ids that have a meaning in a row and must not come from a text: pad, cls, sep and mask."""
        return {number for number in (self.pad, self.cls, self.sep, self.mask) if number is not None}

    def names(self, tokenizer: Tokenizer) -> dict[str, str]:
        """Return the token of each role that a token has."""
        roles = {role: getattr(self, role) for role in NAMES}
        return {role: str(tokenizer.id_to_token(number)) for role, number in roles.items() if number is not None}


def padded_vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return the rows of the embedding: the largest id plus one, rounded up to a multiple of 64. Ids may have gaps."""
    return -(-(max(tokenizer.get_vocab().values()) + 1) // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def first_in(names: Sequence[str], vocabulary: Mapping[str, int]) -> str | None:
    """Return the first of some names that is in a vocabulary."""
    return next((name for name in names if name in vocabulary), None)


def read_roles(tokenizer: Tokenizer) -> dict[str, str | None]:
    """Return the token of each role, as `write_roles` wrote it; empty for another post-processor."""
    entries = read_entries(tokenizer)
    if f"{ROLE_ENTRY}sep" not in entries:
        return {}
    return {role: entries[ROLE_ENTRY + role]["tokens"][0] if ROLE_ENTRY + role in entries else None for role in NAMES}


def read_entries(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the special tokens that the post-processor names, by the name of their entry."""
    if tokenizer.post_processor is None:
        return {}
    entries = json.loads(tokenizer.post_processor.__getstate__()).get("special_tokens")
    return entries if isinstance(entries, dict) else {}


def write_roles(tokenizer: Tokenizer, roles: Mapping[str, str | None]) -> None:
    """Write the token of each role into the post-processor, and make `encode` frame texts by them."""
    entries = {ROLE_ENTRY + role: token for role, token in roles.items() if token}
    frame_encodings(tokenizer, roles["cls"], roles["sep"], entries)


def frame_encodings(
    tokenizer: Tokenizer, cls: str | None, sep: str | None, entries: Mapping[str, str] | None = None
) -> None:
    """Make `encode` return `cls text sep`, without a token that is None.

    `entries` are further tokens, by the name of their entry, that the post-processor keeps.
    """
    framing = {token: token for token in (cls, sep) if token}
    special = [
        {"id": name, "ids": [tokenizer.token_to_id(token)], "tokens": [token]}
        for name, token in (framing | dict(entries or {})).items()
    ]
    single = [*([f"{cls}:0"] if cls else []), "$A:0", *([f"{sep}:0"] if sep else [])]
    second = ["$B:1", *([f"{sep}:1"] if sep else [])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=single + second, special_tokens=special
    )


def find_written_controls(tokenizer: Tokenizer, special: SpecialTokens) -> set[int]:
    """Return the control tokens that a text can produce by writing their names, although it is encoded as text.

    Most tokenizers have none. A Unigram model and a model of whole words find these names in their vocabulary, as they
    find any other piece.
    """
    tokenizer.encode_special_tokens = True
    controls = special.controls()
    names = [str(tokenizer.id_to_token(number)) for number in controls]
    texts = [" a ".join(names), *names]
    return controls & {number for text in texts for number in tokenizer.encode(text, add_special_tokens=False).ids}


def select_text_tokens(encoding: Encoding, controls: set[int]) -> list[int]:
    """Return the indices of an encoding's tokens without those of `controls` that the text itself has written."""
    pairs = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    return [index for index, (number, added) in enumerate(pairs) if added or number not in controls]
