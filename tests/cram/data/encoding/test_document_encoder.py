import pickle
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from cram.config.data import WordPieceConfig
from cram.data.encoding import document_encoder
from cram.data.encoding.document_encoder import DocumentEncoder
from cram.data.encoding.word_boundaries import GPT2, LLAMA3, QWEN2, find_boundaries
from cram.data.encoding.word_table import LONGEST_WORD
from cram.data.special_tokens import SpecialTokens, find_written_controls, select_text_tokens, write_roles
from cram.data.wordpiece import make_normalizer

SPECIAL = ["<pad>", "<unk>", "</s>", "<mask>"]
ROLES = {"pad": "<pad>", "unk": "<unk>", "cls": None, "sep": "</s>", "mask": "<mask>"}
SAMPLE = [
    "The soldier's letter didn't reach the castle; she'll write 12,345 words (or fewer) -- \"perhaps\".",
    "Größe, café, naïve: they've been used in 1999/2000 by O'Neil & co_workers... 中文字 ＡＢＣ",
    "x = [f(y) for y in range(10)]\n\n\tif x != y:  return {a_b: 'c'}\r\n",
] * 3

# What decides where words end: every control, white space, marks, signs, quotation marks, capitals, names of tokens.
SPECIALS_IN_TEXT = [*SPECIAL, "[CLS]", "[MASK]", "[UNK]", "##ing", "<tool>", "|||IP|||"]
EVERY_SPACE = [chr(code) for code in range(0x3001) if chr(code).isspace()]
AWKWARD = [
    *map(chr, range(33)),
    *map(chr, range(0x7F, 0xA1)),
    *EVERY_SPACE,
    *"\u0301\u0308\u0338\u0331\u0307\u0345\u200b\u200d\u00ad\u0600\ufeff\ufffd\u00a8\u02d8\ufdfa\u212a\u017f\u0130\u1e96",
    *"``''\"'.,;:!?_-<>=(){}[]#▁ĠaAhHKsSißß中文ｱ１½²٣क्षिกำ한각😀",
    *(
        "'s",
        "'ll",
        "'RE",
        "``",
        "''",
        "  ",
        "    ",
        "\r\n",
        " \n",
        "\n ",
        "...",
        "a_b",
        "d>\u0338",
        "e\u0301",
        "H\u0331",
    ),
]
pieces = st.one_of(
    st.sampled_from(AWKWARD),
    st.sampled_from(SPECIALS_IN_TEXT),
    st.sampled_from(["the", "letter", "The", "castle", "didn", "words", " the", " letter", "12", "x" * 101, "y" * 300]),
    st.characters(exclude_categories=["Cs"]),
)
some_texts = st.lists(st.lists(pieces, max_size=12).map("".join), min_size=1, max_size=5)


def with_normalizer(tokenizer: Tokenizer, *steps: normalizers.Normalizer) -> Tokenizer:
    again = Tokenizer.from_str(tokenizer.to_str())
    again.normalizer = normalizers.Sequence(list(steps))
    return again


def wordpiece(**settings: object) -> Tokenizer:
    """BERT's, with a piece for each character that may decide something, so that no difference is hidden as [UNK]."""
    characters = sorted({c for c in "".join(AWKWARD) if not c.isspace()} | set(map(chr, range(33, 127))))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, "the", "letter", "word", "##s", "it", "##ing"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *(f"##{one}" for one in characters)]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = make_normalizer(WordPieceConfig(**settings))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(pieces[:5])
    write_roles(tokenizer, dict(zip(("pad", "unk", "cls", "sep", "mask"), pieces, strict=False)))
    return tokenizer


def whitespace_wordpiece(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Callable[[], Tokenizer]:
    def make() -> Tokenizer:
        tokenizer = with_normalizer(wordpiece(), normalizers.NFKC(), normalizers.Lowercase())
        tokenizer.pre_tokenizer = pre_tokenizer
        return tokenizer

    return make


def byte_level(
    pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    if normalizer:
        tokenizer.normalizer = normalizer
    write_roles(tokenizer, ROLES | {"unk": None})
    return tokenizer


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def unigram(scheme: str, *steps: normalizers.Normalizer) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(SAMPLE, trainer)
    write_roles(tokenizer, ROLES)
    return with_normalizer(tokenizer, *steps) if steps else tokenizer


def whole_words() -> Tokenizer:
    """A model that finds the names of its special tokens in its vocabulary, as it finds words."""
    vocabulary = [*SPECIAL, "the", "letter", "castle", "x"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIAL)
    write_roles(tokenizer, ROLES)
    return tokenizer


def with_found_first(tokenizer: Tokenizer, **settings: bool) -> Tokenizer:
    tokenizer.add_tokens([AddedToken("<tool>", special=False, **({"normalized": False} | settings))])
    return tokenizer


def modern_bert() -> Tokenizer:
    """The tokens of ModernBERT that are found first: runs of spaces, and names in the normalized text."""
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    names = [*(" " * count for count in range(24, 1, -1)), "\n\n", "|||IP|||", "e\u0301t\u00e9"]
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=True) for name in names])
    return tokenizer


NFKC, LOWER, ACCENTS = normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()
ONE_SPACE = normalizers.Replace(Regex(" {2,}"), " ")

SERVED: dict[str, Callable[[], Tokenizer]] = {
    "bert": wordpiece,
    "cased": lambda: wordpiece(lowercase=False, strip_accents=False),
    "capitals": lambda: wordpiece(lowercase=False),
    "cramming": lambda: wordpiece(normalizer="cramming"),
    "cramming cased": lambda: wordpiece(normalizer="cramming", lowercase=False, strip_accents=False),
    "nfkc, then lower": lambda: with_normalizer(wordpiece(), NFKC, LOWER),
    "nfkd, lower, strip": lambda: with_normalizer(wordpiece(), normalizers.NFKD(), LOWER, ACCENTS),
    "nfd, then nfc": lambda: with_normalizer(wordpiece(), normalizers.NFD(), ACCENTS, normalizers.NFC()),
    "whitespace": whitespace_wordpiece(pre_tokenizers.Whitespace()),
    "whitespace split": whitespace_wordpiece(pre_tokenizers.WhitespaceSplit()),
    "whole words": whole_words,
    "gpt2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2, nfc": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()),
    "gpt2, space first": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "gpt2's pattern": lambda: byte_level(split_by(GPT2)),
    "llama3": lambda: byte_level(split_by(LLAMA3)),
    "qwen2": lambda: byte_level(split_by(QWEN2), normalizers.NFC()),
    "metaspace": lambda: unigram("always"),
    "metaspace first": lambda: unigram("first", NFKC, ONE_SPACE),
    "metaspace never": lambda: unigram("never", normalizers.NFKD(), LOWER, ACCENTS, ONE_SPACE),
    "bert, tool": lambda: with_found_first(wordpiece()),
    "gpt2, tool": lambda: with_found_first(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))),
    "modern bert": modern_bert,
    "metaspace, tool": lambda: with_found_first(unigram("always")),
}


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest) -> Tokenizer:
    return SERVED[request.param]()


def expected(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a document by the library alone."""
    controls = find_written_controls(tokenizer, SpecialTokens.of(tokenizer))
    tokenizer.encode_special_tokens = True
    encoding = tokenizer.encode(text)
    return [encoding.ids[place] for place in select_text_tokens(encoding, controls)]


def encoded(encoder: DocumentEncoder, texts: list[str]) -> list[list[int]]:
    ids, lengths = encoder.encode_documents(texts)
    assert len(lengths) == len(texts) and lengths.sum() == len(ids)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@settings(max_examples=30)
@given(some_texts)
def test_the_ids_are_those_of_the_library(served: Tokenizer, texts: list[str]) -> None:
    encoder = DocumentEncoder(served.to_str(), words=40)  # a small table, which forgets
    for _ in range(2):
        assert encoded(encoder, texts) == [expected(served, text) for text in texts]
    assert encoder.table is not None


def test_every_character_beside_every_boundary(served: Tokenizer) -> None:
    """Characters of all of Unicode between letters, signs and spaces; `proofs.words` takes every one."""
    encoder = DocumentEncoder(served.to_str(), words=1000)
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assigned = [one for one in characters if unicodedata.category(one) not in ("Cn", "Co", "Lo")]
    texts = [f"The{one}a {one}H{one},{one} b{one}\n{one}.x  {one} {one}{one}'s" for one in assigned[::101] + AWKWARD]
    assert encoded(encoder, texts) == [expected(served, text) for text in texts]


def test_what_is_not_known_to_be_exact_goes_to_the_library() -> None:
    tokenizer = unigram("always", normalizers.Strip())
    assert find_boundaries(tokenizer) is None
    encoder = DocumentEncoder(tokenizer.to_str(), words=1000)
    texts = [" The letter ", "", "</s> words"]
    assert encoded(encoder, texts) == [expected(tokenizer, text) for text in texts]
    assert encoder.table is None


def test_another_frame_goes_to_the_library() -> None:
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[MASK]", 4))
    encoder = DocumentEncoder(tokenizer.to_str(), words=1000)
    assert encoded(encoder, ["the letter"]) == [expected(tokenizer, "the letter")]
    assert encoder.table is None


def test_a_table_of_no_words_sends_everything_to_the_library() -> None:
    encoder = DocumentEncoder(wordpiece().to_str(), words=0)
    assert encoded(encoder, SAMPLE) == [expected(wordpiece(), text) for text in SAMPLE]
    assert encoder.table is None


@pytest.mark.parametrize("words", [0, 1000])
def test_types_and_no_texts(words: int) -> None:
    encoder = DocumentEncoder(wordpiece().to_str(), words)
    for texts in ([], [""], ["", "the", ""]):
        ids, lengths = encoder.encode_documents(texts)
        assert (ids.dtype, lengths.dtype) == (np.uint16, np.int64)
        assert encoded(encoder, texts) == [expected(wordpiece(), text) for text in texts] if texts else not len(lengths)
    assert encoder.frame == 2


def test_ids_beyond_uint16() -> None:
    vocabulary = {"[PAD]": 0, "[SEP]": 1, "[UNK]": 2, "the": 70_000}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    write_roles(tokenizer, {"pad": "[PAD]", "unk": "[UNK]", "cls": None, "sep": "[SEP]", "mask": None})
    for words in (0, 10):
        ids, _ = DocumentEncoder(tokenizer.to_str(), words).encode_documents(["the the"])
        assert ids.dtype == np.int32 and ids.tolist() == [70_000, 70_000, 1]


def test_more_text_than_one_array_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_encoder, "MOST_BYTES", 300)
    texts = [*SAMPLE, "", *SAMPLE]
    assert encoded(DocumentEncoder(wordpiece().to_str(), 50), texts) == [expected(wordpiece(), text) for text in texts]


def test_long_words_are_not_remembered() -> None:
    encoder = DocumentEncoder(wordpiece().to_str(), words=1000)
    encoder.encode_documents(["y" * (LONGEST_WORD + 1), "the"])
    assert encoder.table is not None and len(encoder.table) == 1


def test_an_encoder_is_pickled_without_its_table() -> None:
    encoder = DocumentEncoder(wordpiece().to_str(), words=1000)
    encoder.encode_documents(SAMPLE)
    again = pickle.loads(pickle.dumps(encoder))
    assert len(pickle.dumps(encoder)) < len(wordpiece().to_str()) + 1000
    assert encoded(again, SAMPLE) == encoded(encoder, SAMPLE)
