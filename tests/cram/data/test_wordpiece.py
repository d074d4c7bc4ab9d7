import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from cram.config.data import WordPieceConfig
from cram.data import wordpiece
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import load_tokenizer
from cram.data.wordpiece import SPECIAL_TOKENS, make_normalizer, train_tokenizer
from cram.errors import CramError

ROOT = Path(__file__).parents[3]

# Every pair of letters is equally frequent here: the order of the merges is nothing but ties.
TIES = "[''.join(p) for p in itertools.permutations('abcdefgh', 4)] * 2"
TRAIN = f"""
import itertools, sys
from cram.config.data import WordPieceConfig
from cram.data.wordpiece import train_tokenizer
texts = [" ".join({TIES}), "Übergröße naïve 漢字 漢字", "caf\\u00e9 ! ? ."] * 3
sys.stdout.write(train_tokenizer(texts, WordPieceConfig(vocab_size=256)).to_str(pretty=True))
"""
WORDS = [
    f"{start}{middle}{end}"
    for start in ("un", "re", "pre")
    for middle in ("do", "play", "test")
    for end in ("ing", "ed", "able", "s")
]
TEXTS = [" ".join(WORDS)] * 3


def test_two_processes_train_the_same_file() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", TRAIN], stdout=subprocess.PIPE, env=environment) for _ in range(4)
    ]
    outputs = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(outputs) == 1
    assert Tokenizer.from_str(outputs.pop().decode()).get_vocab_size() == 256


def test_layout_of_the_vocabulary_and_of_an_encoding() -> None:
    tokenizer = train_tokenizer(TEXTS, WordPieceConfig(vocab_size=64))
    assert [tokenizer.id_to_token(number) for number in range(5)] == list(SPECIAL_TOKENS)
    assert tokenizer.get_vocab_size() == 64
    encoding = tokenizer.encode("Undoing retests")
    assert encoding.tokens[0] == "[CLS]" and encoding.tokens[-1] == "[SEP]"
    assert tokenizer.decode(encoding.ids) == "undoing retests"
    assert tokenizer.encode("[MASK] ing").tokens[1] == "[MASK]"
    assert tokenizer.encode("a", "b").type_ids == [0, 0, 0, 1, 1]
    special = SpecialTokens.of(tokenizer)
    assert (special.pad, special.unk, special.cls, special.sep, special.mask) == (0, 1, 2, 3, 4)
    assert special.ids() == [0, 1, 2, 3, 4]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, WordPieceConfig(vocab_size=64))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path / "tokenizer.json").to_str() == tokenizer.to_str()


def test_rare_characters_do_not_fill_the_vocabulary() -> None:
    rare = "".join(chr(0x4E00 + number) for number in range(3000))
    tokenizer = train_tokenizer([*TEXTS * 4, rare], WordPieceConfig(vocab_size=128))
    characters = [piece for piece in tokenizer.get_vocab() if len(piece.removeprefix("##")) == 1]
    assert len(characters) < 128
    assert len(tokenizer.encode("pretesting").tokens) <= 4


def unknown(texts: list[str], **settings: Any) -> float:
    """The share of unknown tokens in the texts that a tokenizer was trained on."""
    tokenizer = train_tokenizer(texts, WordPieceConfig(**settings))
    ids = [number for text in texts for number in tokenizer.encode(text, add_special_tokens=False).ids]
    return ids.count(SpecialTokens.of(tokenizer).unk) / len(ids)


def phrases(letters: list[str], length: int) -> list[str]:
    """Texts of phrases without spaces, drawn from syllables of two to four letters."""
    source = random.Random(0)
    syllables = ["".join(source.choices(letters, k=source.randint(2, 4))) for _ in range(200)]
    return [" ".join("".join(source.choices(syllables, k=length)) for _ in range(8)) for _ in range(40)]


def test_scripts_without_spaces_between_words_are_not_unknown() -> None:
    thai = [chr(code) for code in range(0x0E01, 0x0E2F)]
    assert unknown(phrases(thai, 50), vocab_size=512) == 0.0  # phrases of 100 to 200 letters
    source = random.Random(0)
    ideographs = [chr(0x4E00 + number) for number in range(600)]
    weights = [1 / (rank + 1) for rank in range(600)]
    assert unknown(["".join(source.choices(ideographs, weights, k=200)) for _ in range(100)], vocab_size=576) < 0.005


def test_scripts_of_many_letters_are_known() -> None:
    syllables = [chr(0xAC00 + 31 * number) for number in range(250)]
    source = random.Random(0)
    texts = [" ".join("".join(source.choices(syllables, k=3)) for _ in range(60)) for _ in range(100)]
    assert unknown(texts, vocab_size=832, strip_accents=False) == 0.0
    assert unknown(texts, vocab_size=512) == 0.0  # without accents it is made of its letters


def test_a_long_word_in_text_of_words_stays_unknown() -> None:
    long = "ab" * 60
    tokenizer = train_tokenizer([*TEXTS * 400, long], WordPieceConfig(vocab_size=64))
    assert tokenizer.encode(long, add_special_tokens=False).tokens == ["[UNK]"]


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, "Ünïted 漢字\u00a0 “Q”", "united  漢  字   “q”"),
        ({"strip_accents": False}, "Ünïted", "ünïted"),
        ({"lowercase": False}, "Ünïted", "United"),
        ({"normalizer": "cramming"}, "``Ünïted''   漢字 “Q”", '"united"  q'),
        ({"normalizer": "cramming", "lowercase": False}, "É  ﬁ", "E "),
        ({"normalizer": "cramming", "strip_accents": False}, "É  ﬁx", " fix"),
    ],
)
def test_normalizers(settings: dict[str, object], text: str, expected: str) -> None:
    assert make_normalizer(WordPieceConfig(**settings)).normalize_str(text) == expected  # type: ignore[arg-type]


def test_a_corpus_too_small_for_the_vocabulary() -> None:
    with pytest.raises(CramError, match=r"vocab_size=32768: corpus too small .* \d+ pieces\nset .* to \d+ or less"):
        train_tokenizer(TEXTS, WordPieceConfig())


def test_a_vocabulary_too_small_for_the_characters() -> None:
    text = " ".join(chr(97 + first) + chr(97 + second) for first in range(26) for second in range(26))
    tight = "".join(map(chr, range(0x430, 0x450)))
    with pytest.raises(CramError, match=r"vocab_size=64: too small .*characters alone are \d+ pieces\nset .* to 128"):
        train_tokenizer([text + " " + tight], WordPieceConfig(vocab_size=64))


def test_words_that_are_too_long_do_not_change_the_other_pieces() -> None:
    source = random.Random(1)
    texts = [" ".join(source.choices(WORDS, k=30)) for _ in range(40)]
    config = WordPieceConfig(vocab_size=64)
    plain = train_tokenizer(texts, config)
    long = ["x" * 5_000, "zq" * 300 + "!" + "w" * 300, "end " + "v" * 300 + ", end"]
    found = train_tokenizer([*texts, *long, *texts], config)
    assert set(found.get_vocab()) - set(plain.get_vocab()) <= {"!", ",", "end", "##end"}
    assert not [piece for piece in found.get_vocab() if set(piece) & set("zqvw")]
    assert found.encode("undoing " + "v" * 300, add_special_tokens=False).tokens[-1] == "[UNK]"


def test_words_are_split_at_punctuation_before_their_length_is_checked() -> None:
    half = "a" * 60
    text = f"{half}。{half} {'b' * 101} {half}-{half}"
    assert wordpiece._drop_longer_words(text, 100).split() == [half, "。", half, f"{half}-{half}"]
    assert wordpiece._drop_longer_words("c" * 101, 100) == ""
    assert wordpiece._drop_longer_words("c" * 100, 100) == "c" * 100
