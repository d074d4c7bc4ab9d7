"""WordPiece trained the long way: whole texts are normalized and split, and the library trains twice.

The first training finds the `##` pieces of single characters, the second one gets them in fixed places.
`train_tokenizer` reaches the same result from the distinct words of the texts.
"""

from collections import Counter

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from cram.config.data import WordPieceConfig
from cram.data import wordpiece


def train_twice(texts: list[str], config: WordPieceConfig) -> Tokenizer:
    """Return the tokenizer, or raise the error, that `train_tokenizer` must give."""
    normalizer = wordpiece.make_normalizer(config)
    normalized = [normalizer.normalize_str(text) for text in texts]
    in_runs = sum(len(run) for text in normalized for run in wordpiece.LONG_RUNS.findall(text))
    is_phrases = in_runs > wordpiece.PHRASE_SHARE * sum(map(len, normalized))
    longest = wordpiece.LONGEST_PHRASE if is_phrases else wordpiece.LONGEST_WORD
    normalized = [wordpiece._drop_longer_words(text, longest) for text in normalized]
    alphabet = wordpiece._choose_alphabet(Counter("".join(normalized)), config.vocab_size)
    characters = _train(normalized, 0, [], alphabet)
    continuations = sorted(piece for piece in characters if len(piece) > 2 and piece.startswith("##"))
    pieces = _train(normalized, config.vocab_size, continuations, alphabet)
    if len(pieces) != config.vocab_size:
        raise wordpiece._size_error(len(pieces), config.vocab_size)
    return wordpiece._assemble_tokenizer(pieces, normalizer, longest)


def _train(texts: list[str], size: int, continuations: list[str], alphabet: list[str]) -> dict[str, int]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=wordpiece.MIN_FREQUENCY,
        special_tokens=[*wordpiece.SPECIAL_TOKENS, *continuations],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
