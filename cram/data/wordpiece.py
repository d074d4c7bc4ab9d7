"""Train a WordPiece tokenizer, so that the same text gives the same tokenizer.json in every process."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from cram.config.data import VOCAB_MULTIPLE, WordPieceConfig
from cram.data.special_tokens import write_roles
from cram.data.word_counts import count_characters, count_plain_words, count_units, repeat_words
from cram.errors import CramError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
# The alphabet covers all but 0.05% of the text, as long as at most a third of the vocabulary is spent on characters
# that may take two pieces each (ideographs are words of their own and take one). At least vocab_size / 32 characters
# (1024 at 32768) are let in, so that English keeps its rare ones.
COVERAGE = 0.9995
SMALLEST_ALPHABET = 64
FLOOR_DIVISOR, CEILING_DIVISOR = 32, 3
# A longer word becomes the unknown token, as in BERT. Text without spaces between words is one long word and gets a
# higher limit. It is not much higher, because the time to encode a word grows with the cube of its length.
LONGEST_WORD, LONGEST_PHRASE = 100, 256
LONG_RUNS = re.compile(rf"[^\s!-/:-@\[-`{{-~]{{{LONGEST_WORD + 1},}}")  # neither white space nor ASCII punctuation
PHRASE_SHARE = 0.01  # the share of the characters in long runs from which on the higher limit holds
MIN_FREQUENCY = 2  # a pair that is seen once does not become a piece


def train_tokenizer(texts: Iterable[str], config: WordPieceConfig) -> Tokenizer:
    """Train a WordPiece tokenizer of exactly `config.vocab_size` pieces, with special tokens at ids 0 to 4.

    The result depends only on the texts and the settings. The library alone would not guarantee this: it numbers the
    `##` pieces of single characters in the random order of its hash maps, and merges equally frequent pairs in their
    order. Therefore the alphabet and its `##` pieces are chosen here, and the library receives them, sorted, in fixed
    places.

    The text is normalized and split word by word, each distinct word once. The library takes no counts, so it is given
    each word as often as it occurs.

    Raises:
        CramError: if the text does not give that many pieces, or its characters alone give more.
    """
    assert config.vocab_size > 0 and config.vocab_size % VOCAB_MULTIPLE == 0, config
    normalizer = make_normalizer(config)
    texts = list(texts)
    words, longest = _count_words(texts, normalizer, config.lowercase)
    alphabet = _choose_alphabet(count_characters(words), config.vocab_size)
    pieces = _train_pieces(words, config.vocab_size, _find_continuations(words, alphabet), alphabet)
    if len(pieces) != config.vocab_size:
        raise _size_error(len(pieces), config.vocab_size)
    return _assemble_tokenizer(pieces, normalizer, longest)


def make_normalizer(config: WordPieceConfig) -> normalizers.Normalizer:
    """Make the normalizer of a tokenizer: `bert` is BERT's own, `cramming` keeps only ASCII, with ASCII quotes.

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


def _count_words(texts: list[str], normalizer: normalizers.Normalizer, lowercase: bool) -> tuple[dict[str, int], int]:
    """Count the words of the normalized texts as BERT's pre-tokenizer splits them, without words that are too long.

    Returns:
        How often each word occurs, and the length in characters of the longest word that is cut into pieces.
    """
    words, others = count_plain_words(count_units(texts), lowercase)
    units, counts = others.strings.cast("large_string").to_pylist(), others.counts.tolist()
    normalized = list(zip(map(normalizer.normalize_str, units), counts, strict=True))
    in_units = _add_lengths(words.items()) + _add_lengths(zip(units, counts, strict=True))
    spaces = sum(map(len, texts)) - in_units
    longest = _choose_longest_word([*words.items(), *normalized], spaces, map(normalizer.normalize_str, texts))
    # The trainer's time grows with the square of a word's length or faster, and longer words are never cut into pieces.
    words = {word: count for word, count in words.items() if len(word) <= longest}
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    for text, count in normalized:
        for word, _ in pre_tokenizer.pre_tokenize_str(_drop_longer_words(text, longest)):
            words[word] = words.get(word, 0) + count
    return words, longest


def _add_lengths(counted: Iterable[tuple[str, int]]) -> int:
    return sum(len(text) * count for text, count in counted)


def _choose_longest_word(counted: list[tuple[str, int]], spaces: int, texts: Iterable[str]) -> int:
    """Return the length in characters of the longest word that is cut into pieces.

    Args:
        counted: the normalized pieces of the texts between white space of ASCII, and their counts.
        spaces: how many characters of white space stand between the pieces before they are normalized.
        texts: the normalized texts. They are read only if the choice depends on how much white space is left in them.
    """
    in_runs = sum(len(run) * count for piece, count in counted for run in LONG_RUNS.findall(piece))
    pieces = _add_lengths(counted)
    if in_runs <= PHRASE_SHARE * pieces:
        return LONGEST_WORD
    if in_runs > PHRASE_SHARE * (pieces + spaces):
        return LONGEST_PHRASE
    return LONGEST_PHRASE if in_runs > PHRASE_SHARE * sum(map(len, texts)) else LONGEST_WORD


def _choose_alphabet(counts: Mapping[str, int], vocab_size: int) -> list[str]:
    """Return the most frequent characters, sorted. Of equally frequent ones the lower code points are chosen.

    Source: SentencePiece, arXiv:1808.06226 (a share of the characters that is covered). Changed: a floor and a ceiling.
    """
    visible = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    covered = list(accumulate(-count for count, _ in visible))
    enough = bisect_left(covered, COVERAGE * covered[-1]) + 1 if covered else 0
    floor = max(SMALLEST_ALPHABET, vocab_size // FLOOR_DIVISOR)
    alphabet = [character for _, character in visible[:floor]]
    joinable = sum(not _is_ideograph(character) for character in alphabet)
    free_pieces = vocab_size - len(SPECIAL_TOKENS) - len(alphabet) - joinable
    for count, character in visible[floor:enough]:
        alone = _is_ideograph(character)
        cost = 1 if alone else 2
        if -count >= MIN_FREQUENCY and free_pieces >= cost and (alone or joinable < vocab_size // CEILING_DIVISOR):
            alphabet.append(character)
            joinable += not alone
            free_pieces -= cost
    return sorted(alphabet)


def _is_ideograph(character: str) -> bool:
    """Whether BERT's normalizer makes the character a word of its own."""
    return unicodedata.name(character, "").startswith("CJK ")


def _drop_longer_words(text: str, longest: int) -> str:
    """Return a text without the words that are longer; words are split as by BERT's pre-tokenizer."""

    def drop_in_run(run: re.Match[str]) -> str:
        spaced = (f" {sign} " if unicodedata.category(sign).startswith("P") else sign for sign in run[0])
        return " ".join(word for word in "".join(spaced).split() if len(word) <= longest)

    return LONG_RUNS.sub(drop_in_run, text)


def _find_continuations(words: Iterable[str], alphabet: list[str]) -> list[str]:
    """Return the `##` pieces of the alphabet's characters that stand behind a word's first character, sorted."""
    inside = set("".join(word[1:] for word in words))
    return sorted(CONTINUATION + character for character in inside.intersection(alphabet))


def _train_pieces(words: dict[str, int], size: int, continuations: list[str], alphabet: list[str]) -> dict[str, int]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    # A word of one character has no pair to merge, and the alphabet is given.
    mergeable = {word: count for word, count in words.items() if len(word) > 1}
    tokenizer.train_from_iterator(repeat_words(mergeable), trainer)
    return tokenizer.get_vocab()


def _assemble_tokenizer(pieces: dict[str, int], normalizer: normalizers.Normalizer, longest_word: int) -> Tokenizer:
    """Make a new tokenizer from the vocabulary: the trained one would treat its `##` pieces as special tokens."""
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
    write_roles(tokenizer, dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True)))
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _size_error(pieces: int, vocab_size: int) -> CramError:
    if pieces < vocab_size:
        return CramError(
            f"wordpiece.vocab_size={vocab_size}: corpus too small for the vocabulary, its text gives {pieces} pieces\n"
            f"set wordpiece.vocab_size to {pieces // VOCAB_MULTIPLE * VOCAB_MULTIPLE or VOCAB_MULTIPLE} or less, "
            "or give more text."
        )
    least = -(-pieces // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return CramError(
        f"wordpiece.vocab_size={vocab_size}: too small for this text, its characters alone are {pieces} pieces\n"
        f"set wordpiece.vocab_size to {least} or more."
    )
