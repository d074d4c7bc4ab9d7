"""WordPiece, trained so that the same text gives the same file in every process; or a tokenizer.json given by path."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cram.config import WordPieceConfig
from cram.errors import CramError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
VOCAB_MULTIPLE = 64
SMALLEST_ALPHABET = 64  # characters
ALPHABET_SHARE = 32  # at most vocab_size / 32 characters (1024 at 32768), so that rare scripts do not eat the pieces
MIN_FREQUENCY = 2  # a pair that is seen once is no piece


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the special tokens."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "SpecialTokens":
        """Look the ids up; CramError where the vocabulary lacks one."""
        vocabulary = tokenizer.get_vocab()
        if missing := [token for token in SPECIAL_TOKENS if token not in vocabulary]:
            raise CramError(
                f"tokenizer: no {', '.join(missing)} in its vocabulary; give a tokenizer.json that has "
                f"{' '.join(SPECIAL_TOKENS)}, or leave the key out to train one"
            )
        return cls(*(vocabulary[token] for token in SPECIAL_TOKENS))

    def ids(self) -> list[int]:
        """All five: the tokens that are never predicted."""
        return list(astuple(self))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json whose `encode` gives `[CLS] text [SEP]`, uncut and unpadded.

    Raises CramError when the file is missing or no tokenizer, or has other special tokens.
    """
    if not Path(path).is_file():
        raise CramError(f"tokenizer={path}: there is no such file; give the path of a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CramError(f"tokenizer={path}: not a tokenizer.json ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = SpecialTokens.of(tokenizer)
    ids = tokenizer.encode("a").ids
    if len(ids) < 2 or ids[0] != special.cls or ids[-1] != special.sep:
        tokenizer.post_processor = _post_processor(special)
    return tokenizer


def train_tokenizer(texts: Iterable[str], config: WordPieceConfig) -> Tokenizer:
    """A WordPiece tokenizer of exactly `config.vocab_size` pieces, special tokens at ids 0 to 4.

    The file is a pure function of the texts and the settings. Left to itself the library is not: it numbers the
    `##` pieces of single characters in the random order of its hash maps, and equally frequent pairs are merged
    by these numbers. So the alphabet is chosen here, a first pass finds its `##` pieces, and the second gets
    them, sorted, in places of their own.

    Raises CramError when vocab_size is not a multiple of 64 or the text does not give that many pieces.
    """
    if config.vocab_size <= 0 or config.vocab_size % VOCAB_MULTIPLE:
        raise CramError(
            f"wordpiece.vocab_size={config.vocab_size} is not a multiple of {VOCAB_MULTIPLE}; "
            f"the nearest is {max(1, round(config.vocab_size / VOCAB_MULTIPLE)) * VOCAB_MULTIPLE}"
        )
    normalizer = make_normalizer(config)
    normalized = [normalizer.normalize_str(text) for text in texts]
    alphabet = _alphabet(normalized, max(SMALLEST_ALPHABET, config.vocab_size // ALPHABET_SHARE))
    characters = _train(normalized, 0, [], alphabet)
    continuations = sorted(piece for piece in characters if len(piece) > 2 and piece.startswith(CONTINUATION))
    pieces = _train(normalized, config.vocab_size, continuations, alphabet)
    if len(pieces) != config.vocab_size:
        raise _wrong_size(len(pieces), config.vocab_size)
    return _assemble(pieces, normalizer)


def make_normalizer(config: WordPieceConfig) -> normalizers.Normalizer:
    """`bert`: BERT's own. `cramming`: ASCII quotes and nothing but ASCII.

    Source: github.com/JonasGeiping/cramming, `cramming/data/tokenizer_preparation.py`.
    """
    if config.normalizer == "bert":
        return normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=config.strip_accents,
            lowercase=config.lowercase,
        )
    steps = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
        normalizers.NFD() if config.strip_accents else normalizers.NFKC(),
        *([normalizers.Lowercase()] if config.lowercase else []),
        *([normalizers.StripAccents()] if config.strip_accents else []),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Replace(Regex(r"[^\x00-\x7F]+"), ""),
    ]
    return normalizers.Sequence(steps)


def _alphabet(texts: list[str], most: int) -> list[str]:
    """The most frequent characters, by code point; of equally frequent ones the lower code points."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    visible = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    return sorted(character for _, character in visible[:most])


def _train(texts: list[str], size: int, continuations: list[str], alphabet: list[str]) -> dict[str, int]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer.get_vocab()


def _assemble(pieces: dict[str, int], normalizer: normalizers.Normalizer) -> Tokenizer:
    """Built anew from the vocabulary: the trained one would cut every text at its `##` pieces as special tokens."""
    vocabulary = dict(sorted(pieces.items(), key=lambda item: item[1]))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=CONTINUATION))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = _post_processor(SpecialTokens.of(tokenizer))
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _post_processor(special: SpecialTokens) -> processors.PostProcessor:
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", special.cls), ("[SEP]", special.sep)],
    )


def _wrong_size(found: int, wanted: int) -> CramError:
    if found < wanted:
        return CramError(
            f"wordpiece.vocab_size={wanted}: corpus too small for the vocabulary, its text gives {found} pieces\n"
            f"set wordpiece.vocab_size to {found // VOCAB_MULTIPLE * VOCAB_MULTIPLE or VOCAB_MULTIPLE} or less, "
            "or give more text"
        )
    least = -(-found // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return CramError(
        f"wordpiece.vocab_size={wanted}: too small for this text, its characters alone are {found} pieces\n"
        f"set wordpiece.vocab_size to {least} or more"
    )
