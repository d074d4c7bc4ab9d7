"""Normalizers, the splitters of their words, and words of texts that are split one at a time."""

from tokenizers import normalizers

from cram.config.data import WordPieceConfig
from cram.data.cleaning.word_hashes import Words, WordSplitter, serialize_normalizer, split_words
from cram.data.wordpiece import make_normalizer
from proofs.columns import make_words

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


def words_of(text: str) -> Words:
    """The words of a text alone."""
    return make_words([split_words(text)])[0]
