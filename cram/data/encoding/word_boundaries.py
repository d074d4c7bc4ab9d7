"""Where a text can be cut so that a tokenizer gives the same ids for the pieces as for the whole text.

The pieces are called words here: a run of white space with the letters, digits or signs that follow it. A text is cut
only where that is exact for every text. Elsewhere, as beside a character whose treatment depends on its neighbours, it
stays in one piece, and the tokenizer sees the piece as it stands. Three kinds of tokenizers have such places:

words        Pre-tokenizers that split at white space and drop it: BERT's, `Whitespace`, `WhitespaceSplit`. Their
             normalizers change single characters or a character with its combining marks, and a space or an ASCII
             character begins anew. BERT's and `Whitespace` also split between ASCII letters and ASCII signs.
byte level   The patterns of GPT-2, Llama 3 and Qwen. No match goes on from a visible character into a space, or from
             an ASCII letter into an ASCII sign, and no pattern looks back.
metaspace    The pre-tokenizer of SentencePiece models, which begins a piece at each space.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Kind = Literal["words", "byte level", "metaspace"]

# Classes of bytes. A word may begin at a space, but not behind an opaque byte.
OTHER, LETTER, SIGN, OPAQUE, SPACE = 0, 1, 2, 4, 8

LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIGNS = bytes(code for code in range(33, 127) if code not in LETTERS)
# The last bytes of all white space beyond ASCII: U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F,
# U+205F and U+3000. A pattern treats such a character and the space behind it as one run.
LAST_BYTES_OF_SPACES = bytes.fromhex("85 9f a0 a8 a9 af") + bytes(range(0x80, 0x8B))

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# Normalizers that work on one character, or on a character with the combining marks behind it.
LOCAL_NORMALIZERS = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"))
COMPOSING = frozenset(("NFC", "NFKC"))
COMPOSING_SIGNS = b"<=>"  # with U+0338, to the signs of what is not less, equal or greater
LOCAL_PATTERNS = ((" {2,}", " "), (r"[^\x00-\x7F]+", ""))  # regular expressions, and what they are replaced by


@dataclass(frozen=True)
class WordBoundaries:
    """Where the texts of one tokenizer are cut.

    Attributes:
        kind: of the tokenizer.
        spaces: the bytes that count as spaces.
        opaque: bytes behind which no word begins.
        signs: the ASCII signs at which a word begins if a letter or digit is before them; none if empty.
        after_signs: whether a word also begins at a letter or digit behind a sign.
        fold_case: whether ASCII capitals are made small before the words are looked up.
        prefix_space: whether the tokenizer writes a space before a text that does not begin with one.
        plain_words: a regular expression of words that the model sees as they are, but for their white space; None if
            there are no such words. Their normalization and pre-tokenization can be left out.
        plain_prefix: what the model sees in place of the white space before such a word.
    """

    kind: Kind
    spaces: bytes
    opaque: bytes = b""
    signs: bytes = b""
    after_signs: bool = False
    fold_case: bool = False
    prefix_space: bool = False
    plain_words: bytes | None = None
    plain_prefix: str = ""

    def cut(self, texts: bytes, starts: npt.NDArray[np.int64]) -> tuple[bytes, npt.NDArray[np.int64]]:
        """Cut texts into words.

        Args:
            texts: in UTF-8, one after the other.
            starts: int64 [n], where the texts that are not empty begin, ascending; the first is 0.

        Returns:
            The texts with the characters folded that the tokenizer does not distinguish, as long as before; and where
            the words begin, int64 [words], ascending.
        """
        folded, classes = self._tables
        if folded is not None:
            texts = texts.translate(folded)
        kinds = np.frombuffer(texts.translate(classes), np.uint8)
        before, here = kinds[:-1], kinds[1:]
        begins = np.empty(len(kinds), np.bool_)
        np.logical_and(here == SPACE, before < OPAQUE, out=begins[1:])
        if self.after_signs:
            begins[1:] |= (before ^ here) == LETTER ^ SIGN
        elif self.signs:
            begins[1:] |= (before == LETTER) & (here == SIGN)
        begins[starts] = True
        return texts, np.flatnonzero(begins)

    @property
    def _tables(self) -> tuple[bytes | None, bytes]:
        return _make_tables(self)


@cache
def _make_tables(boundaries: WordBoundaries) -> tuple[bytes | None, bytes]:
    """Return what each byte is written as (None: as itself), and the class of each byte."""
    folded = bytearray(range(256))
    if boundaries.kind == "words":  # white space is dropped, whichever it is
        for code in boundaries.spaces:
            folded[code] = ord(" ")
    if boundaries.fold_case:
        folded = folded.translate(bytes.maketrans(LETTERS, LETTERS.lower()))
    classes = bytearray(256)
    for members, name in (
        (LETTERS, LETTER),
        (boundaries.signs, SIGN),
        (boundaries.opaque, OPAQUE),
        (boundaries.spaces, SPACE),
    ):
        for code in members:
            classes[code] = name
    return (None if folded == bytes(range(256)) else bytes(folded)), bytes(classes)


def find_boundaries(tokenizer: Tokenizer) -> WordBoundaries | None:
    """Return where the texts of a tokenizer can be cut; None if no place is known to be exact."""
    definition = json.loads(tokenizer.to_str())
    normalizers = _flatten(definition["normalizer"], "normalizers")
    pre_tokenizers = _flatten(definition["pre_tokenizer"], "pretokenizers")
    boundaries = (
        _find_words(normalizers, pre_tokenizers)
        or _find_byte_level(normalizers, pre_tokenizers)
        or _find_metaspace(normalizers, pre_tokenizers)
    )
    found_first = [token for token in definition["added_tokens"] if not token["special"]]
    if boundaries is None or not found_first:
        return boundaries
    # The tokenizer looks for these tokens before anything else, so no cut may fall into one of them. Nor may one fall
    # into a special token, because none of these is found in the name of a special token.
    special = [token["content"] for token in definition["added_tokens"] if token["special"]]
    is_whole = all(_is_in_one_word(token, boundaries.kind) for token in found_first)
    if boundaries.prefix_space or not is_whole or any(map(_contains_space, special)):
        return None
    return WordBoundaries(boundaries.kind, boundaries.spaces, boundaries.opaque)


def _is_in_one_word(token: dict[str, Any], kind: Kind) -> bool:
    """Whether an added token is found wherever its content is, and always within one word."""
    if any(token[name] for name in ("lstrip", "rstrip", "single_word")):
        return False
    if kind != "byte level":
        return not token["normalized"] and not _contains_space(token["content"])
    # Runs of white space are never cut, and the normalizer of this kind leaves them as they are.
    return not _contains_space(token["content"]) or not token["content"].strip(" \t\n\r")


def _contains_space(text: str) -> bool:
    return any(map(str.isspace, text))


def _flatten(state: dict[str, Any] | None, children: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer in order."""
    if state is None:
        return []
    if state["type"] != "Sequence":
        return [state]
    return [step for inner in state[children] for step in _flatten(inner, children)]


def _find_words(normalizers: list[dict[str, Any]], pre_tokenizers: list[dict[str, Any]]) -> WordBoundaries | None:
    if len(pre_tokenizers) != 1 or not all(step["type"] == "BertNormalizer" or _is_local(step) for step in normalizers):
        return None
    fold_case = _ignores_case(normalizers)
    kind = pre_tokenizers[0]["type"]
    plain = rb" *[0-9%b]+" % _plain_letters(normalizers)
    if kind == "WhitespaceSplit":
        return WordBoundaries("words", b" \t\n\r", fold_case=fold_case, plain_words=plain)
    if kind not in ("BertPreTokenizer", "Whitespace"):
        return None
    composes = any(step["type"] in COMPOSING for step in normalizers)
    # The underscore belongs to the letters for `Whitespace`. A sign that composes is no longer punctuation for BERT's.
    not_cut = b"_" + (COMPOSING_SIGNS if composes else b"")
    signs = SIGNS.translate(None, not_cut + _find_rewritten_signs(normalizers, not_cut))
    return WordBoundaries("words", b" \t\n\r", signs=signs, after_signs=True, fold_case=fold_case, plain_words=plain)


def _find_byte_level(normalizers: list[dict[str, Any]], pre_tokenizers: list[dict[str, Any]]) -> WordBoundaries | None:
    if [step["type"] for step in normalizers] not in ([], ["NFC"]):
        return None
    # Line breaks belong to the signs before them in two of the patterns, so none begins a word.
    boundaries = WordBoundaries(
        "byte level",
        b" \t",
        opaque=bytes([*range(32), 127]) + LAST_BYTES_OF_SPACES,
        signs=SIGNS,
        plain_words=rb" ?[a-zA-Z]+",
        plain_prefix="\u0120",  # how byte-level models write a space
    )
    match pre_tokenizers:
        case [{"type": "ByteLevel", "use_regex": True, "add_prefix_space": prefix_space}]:
            return replace(boundaries, spaces=b" \t\n\r", prefix_space=prefix_space)
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
        ] if pattern in (GPT2, LLAMA3, QWEN2):
            return boundaries
    return None


def _find_metaspace(normalizers: list[dict[str, Any]], pre_tokenizers: list[dict[str, Any]]) -> WordBoundaries | None:
    if not all(map(_is_local, normalizers)):
        return None
    match pre_tokenizers:
        case [{"type": "Metaspace", "split": True, "replacement": space}]:
            # A character beyond ASCII may become or leave a space, which counts together with the space behind it.
            opaque = bytes([*range(32), *range(127, 256)])
            plain = b" [%b]+" % _plain_letters(normalizers)
            return WordBoundaries("metaspace", b" ", opaque, plain_words=plain, plain_prefix=space)
    return None


def _is_local(step: dict[str, Any]) -> bool:
    """Whether what a normalizer does on either side of a space, or of an ASCII letter and sign, is independent."""
    if step["type"] != "Replace":
        return step["type"] in LOCAL_NORMALIZERS
    if "Regex" in step["pattern"]:
        return (step["pattern"]["Regex"], step["content"]) in LOCAL_PATTERNS
    return _are_signs(step["pattern"]["String"]) and _are_signs(step["content"])


def _find_rewritten_signs(normalizers: Iterable[dict[str, Any]], not_cut: bytes) -> bytes:
    """Return the signs that normalizers may replace, if one of them writes a sign of `not_cut`; else nothing."""
    steps = [step for step in normalizers if step["type"] == "Replace" and "String" in step["pattern"]]
    if not any(sign in not_cut for step in steps for sign in step["content"].encode()):
        return b""
    return "".join(step["pattern"]["String"] for step in steps).encode()


def _are_signs(text: str) -> bool:
    return bool(text) and all(ord(character) in SIGNS for character in text)


def _plain_letters(normalizers: Iterable[dict[str, Any]]) -> bytes:
    """Return the letters that normalizers do not change, for a regular expression."""
    lowers = any(step["type"] == "Lowercase" or step.get("lowercase") for step in normalizers)
    return b"a-z" if lowers else b"a-zA-Z"


def _ignores_case(normalizers: Iterable[dict[str, Any]]) -> bool:
    """Whether a normalizer makes ASCII capitals small before anything distinguishes them.

    Composing does: `h` and a line below compose, `H` and a line below do not.
    """
    for step in normalizers:
        if step["type"] == "Lowercase" or step.get("lowercase"):
            return True
        if step["type"] in COMPOSING:
            return False
    return False
