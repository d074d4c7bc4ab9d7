"""WordPiece, trained so that the same text gives the same file in every process; or a tokenizer.json given by path."""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from cram.config.data import VOCAB_MULTIPLE, SpecialConfig, WordPieceConfig
from cram.data.special import NAMES, SpecialTokens, give_roles, set_roles
from cram.errors import CramError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
# Characters of the alphabet: enough for all but 0.05% of the text, as long as no more than a third of the vocabulary is
# spent on those that may take two pieces each (ideographs are words of their own and take one). At least
# vocab_size / 32 (1024 at 32768) are let in, so that English keeps what is rare.
COVERAGE = 0.9995
SMALLEST_ALPHABET = 64
LEAST_SHARE, MOST_SHARE = 32, 3
# A longer word is unknown, as BERT has it. Text without spaces between words is one long word, and gets a higher limit;
# not a much higher one, because the time that a word takes goes with the cube of its length.
LONGEST_WORD, LONGEST_PHRASE = 100, 256
PHRASES = re.compile(rf"[^\s!-/:-@\[-`{{-~]{{{LONGEST_WORD + 1},}}")  # neither white space nor ASCII punctuation
PHRASE_SHARE = 0.01  # of the characters that are in phrases, from which on the higher limit holds
RARE = "\U00013000 \ua66e \ue000"  # a hieroglyph, a letter of one manuscript, and a character of private use
MIN_FREQUENCY = 2  # a pair that is seen once does not become a piece


def load_tokenizer(path: str | Path, special: SpecialConfig | None = None) -> Tokenizer:
    """The tokenizer of a tokenizer.json, its special tokens known: `encode` gives a document, uncut and unpadded.

    Args:
        special: the special tokens that the user has named.

    Raises CramError when the file is missing or no tokenizer, no token ends a document, or unknown text makes it fail.
    """
    if not Path(path).is_file():
        raise CramError(f"tokenizer={path}: there is no such file; give the path of a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CramError(f"tokenizer={path}: not a tokenizer.json ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None  # else the same text would have other tokens each time
    give_roles(tokenizer, Path(path), special or SpecialConfig())
    try:
        tokenizer.encode(RARE)
    except Exception as error:  # the library raises bare Exception
        raise CramError(
            f"tokenizer={path}: it fails at characters that it does not know ({error}); "
            "give one whose token for unknown text is in its vocabulary"
        ) from error
    return tokenizer


def check_mask(path: str, special: SpecialConfig) -> None:
    """Refuse a given tokenizer that cannot serve masked language modelling. Errors: CramError naming the key."""
    if SpecialTokens.of(load_tokenizer(path, special)).mask is None:
        raise CramError(
            f"tokenizer={path}: objective.kind=masked needs a mask, and its vocabulary has none of "
            f"{' '.join(NAMES['mask'])}; name one with special.mask=TOKEN, it is added where it is not there"
        )


def train_tokenizer(texts: Iterable[str], config: WordPieceConfig) -> Tokenizer:
    """A WordPiece tokenizer of exactly `config.vocab_size` pieces, special tokens at ids 0 to 4.

    The file is a pure function of the texts and the settings. Left to itself the library is not: it numbers the
    `##` pieces of single characters in the random order of its hash maps, and equally frequent pairs are merged
    by these numbers. So the alphabet is chosen here, a first pass finds its `##` pieces, and the second gets
    them, sorted, in places of their own.

    Raises CramError when the text does not give that many pieces.
    """
    assert config.vocab_size > 0 and config.vocab_size % VOCAB_MULTIPLE == 0, config
    normalizer = make_normalizer(config)
    normalized = [normalizer.normalize_str(text) for text in texts]
    longest = _longest_word(normalized)
    # The trainer's time goes with the square of a word's length and more, and what is longer is never cut into pieces.
    normalized = [_without_longer(text, longest) for text in normalized]
    alphabet = _alphabet(normalized, config.vocab_size)
    characters = _train(normalized, 0, [], alphabet)
    continuations = sorted(piece for piece in characters if len(piece) > 2 and piece.startswith(CONTINUATION))
    pieces = _train(normalized, config.vocab_size, continuations, alphabet)
    if len(pieces) != config.vocab_size:
        raise _wrong_size(len(pieces), config.vocab_size)
    return _assemble(pieces, normalizer, longest)


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


def _alphabet(texts: list[str], vocab_size: int) -> list[str]:
    """The most frequent characters, by code point; of equally frequent ones the lower code points.

    Source: SentencePiece, arXiv:1808.06226 (a share of the characters that is covered), changed: a floor and a ceiling.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    visible = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    covered = list(accumulate(-count for count, _ in visible))
    enough = bisect_left(covered, COVERAGE * covered[-1]) + 1 if covered else 0
    floor = max(SMALLEST_ALPHABET, vocab_size // LEAST_SHARE)
    alphabet = [character for _, character in visible[:floor]]
    joined = sum(not _stands_alone(character) for character in alphabet)
    left = vocab_size - len(SPECIAL_TOKENS) - len(alphabet) - joined
    for count, character in visible[floor:enough]:
        alone = _stands_alone(character)
        if -count >= MIN_FREQUENCY and left >= (1 if alone else 2) and (alone or joined < vocab_size // MOST_SHARE):
            alphabet.append(character)
            joined += not alone
            left -= 1 if alone else 2
    return sorted(alphabet)


def _stands_alone(character: str) -> bool:
    """Whether it is an ideograph, which BERT's normalizer makes a word of its own."""
    return unicodedata.name(character, "").startswith("CJK ")


def _longest_word(texts: list[str]) -> int:
    """Characters of the longest word that is cut into pieces."""
    phrases = sum(len(phrase) for text in texts for phrase in PHRASES.findall(text))
    return LONGEST_PHRASE if phrases > PHRASE_SHARE * sum(map(len, texts)) else LONGEST_WORD


def _without_longer(text: str, longest: int) -> str:
    """A text without the words that have more characters; words as BERT's pre-tokenizer parts them."""

    def shorter(run: re.Match[str]) -> str:
        parted = (f" {sign} " if unicodedata.category(sign).startswith("P") else sign for sign in run[0])
        return " ".join(word for word in "".join(parted).split() if len(word) <= longest)

    return PHRASES.sub(shorter, text)


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


def _assemble(pieces: dict[str, int], normalizer: normalizers.Normalizer, longest_word: int) -> Tokenizer:
    """Built anew from the vocabulary: the trained one would cut every text at its `##` pieces as special tokens."""
    vocabulary = dict(sorted(pieces.items(), key=lambda item: item[1]))
    model = models.WordPiece(
        vocabulary,
        unk_token="[UNK]",
        continuing_subword_prefix=CONTINUATION,
        max_input_chars_per_word=longest_word,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    set_roles(tokenizer, dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True)))
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


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
