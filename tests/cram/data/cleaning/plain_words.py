"""Words made one text at a time, in the plainest way: what the columns are compared with."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from rensa import RMinHash
from tokenizers import normalizers

from cram.config.data import WordPieceConfig
from cram.data.cleaning.word_hashes import Words, WordSplitter, serialize_normalizer
from cram.data.wordpiece import make_normalizer

NORMALIZERS = [
    None,
    make_normalizer(WordPieceConfig()),
    make_normalizer(WordPieceConfig(lowercase=False, strip_accents=False)),
    make_normalizer(WordPieceConfig(normalizer="cramming")),
    make_normalizer(WordPieceConfig(normalizer="cramming", lowercase=False, strip_accents=False)),
    normalizers.ByteLevel(),
    normalizers.Sequence(
        [normalizers.Replace(" ", "\u2581"), normalizers.Replace("1", "one"), normalizers.Prepend("\u2581")]
    ),
]
SPLITTERS = [WordSplitter(serialize_normalizer(normalizer)) for normalizer in NORMALIZERS]

_JOINT = re.compile(r"[^\w\x00-\x7f]")


def make_words(texts: Sequence[list[str]]) -> list[Words]:
    """The words of each text, given as strings."""
    return [
        Words(
            np.array(hashes, np.uint64),
            np.array([len(word) for word in words], np.int64),
            memoryview("".join(words).encode()),
        )
        for words, hashes in zip(texts, RMinHash.hash_token_sets(texts), strict=True)
    ]


def split_plainly(text: str, split: WordSplitter) -> list[str]:
    """The runs of letters and digits without marks and format characters, each folded by itself."""
    lowered = _JOINT.sub(lambda match: "" if is_joint(match[0]) else match[0], text.lower())
    return [folded for word in re.findall(r"[^\W_]+", lowered) if (folded := split._fold_word(word))]


def is_joint(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
