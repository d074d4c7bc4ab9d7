import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from cram.config.data import WordPieceConfig
from cram.data import word_counts
from cram.data.word_counts import count_characters, count_plain_words, count_units, repeat_words
from cram.data.wordpiece import make_normalizer

ANY = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.text(st.sampled_from(" \t\n\r\x0b\x85\u3000'`-,.abAB09é漢") | ANY), max_size=8)
BERT = pre_tokenizers.BertPreTokenizer()
NORMALIZERS = [
    make_normalizer(WordPieceConfig(normalizer=normalizer, lowercase=lowercase, strip_accents=strip))  # type: ignore[arg-type]
    for normalizer in ("bert", "cramming")
    for lowercase in (True, False)
    for strip in (True, False)
]


def units_of(some: list[str]) -> Counter[str]:
    return Counter(unit for text in some for unit in re.split("[ \t\n\r]", text) if unit)


def as_counter(counted: word_counts.Counted) -> Counter[str]:
    found = zip(counted.strings.to_pylist(), counted.counts.tolist(), strict=True)
    return Counter({string.decode(): count for string, count in found})


@given(texts)
def test_units(some: list[str]) -> None:
    units = count_units(some)
    assert as_counter(units) == units_of(some)
    assert len(units.counts) == len(units_of(some)), "each unit is there once"


def test_units_of_several_groups_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_counts, "_GROUP_BYTES", 20)
    some = ["one two two", "three\tone", "", "a unit of one group and another", "one"] * 9
    assert as_counter(count_units(some)) == units_of(some)


@given(texts, st.sampled_from(NORMALIZERS))
def test_normalized_words_are_those_of_the_units(some: list[str], normalizer: object) -> None:
    """The reason why training may look at each distinct unit alone."""

    def words(text: str) -> list[str]:
        return [word for word, _ in BERT.pre_tokenize_str(normalizer.normalize_str(text))]  # type: ignore[attr-defined]

    for text in some:
        assert words(text) == [word for unit in re.split("[ \t\n\r]", text) for word in words(unit)]


@given(texts, st.booleans(), st.booleans(), st.sampled_from(["bert", "cramming"]))
def test_plain_words_and_the_others_are_all_words(some: list[str], lowercase: bool, strip: bool, kind: str) -> None:
    config = WordPieceConfig(normalizer=kind, lowercase=lowercase, strip_accents=strip)  # type: ignore[arg-type]
    normalizer = make_normalizer(config)
    words, others = count_plain_words(count_units(some), lowercase)
    found = Counter(words)
    for unit, count in as_counter(others).items():
        for word, _ in BERT.pre_tokenize_str(normalizer.normalize_str(unit)):
            found[word] += count
    expected = (BERT.pre_tokenize_str(normalizer.normalize_str(text)) for text in some)
    assert found == Counter(word for splits in expected for word, _ in splits)


def test_which_units_are_plain() -> None:
    text = "Plain-text, it's 'so' 50% `code` ''quoted'' na\u00efve tab\x0bbed \x7f"
    words, others = count_plain_words(count_units([text]), lowercase=False)
    assert words == {"Plain": 1, "-": 1, "text": 1, ",": 1, "it": 1, "'": 3, "s": 1, "so": 1, "50": 1, "%": 1}
    assert as_counter(others) == Counter(["`code`", "''quoted''", "na\u00efve", "tab\x0bbed", "\x7f"])
    assert count_plain_words(count_units(["A a"]), lowercase=True)[0] == {"a": 2}


@given(st.dictionaries(st.text(ANY.filter(lambda character: not character.isspace()), min_size=1), st.integers(1, 50)))
def test_characters(words: dict[str, int]) -> None:
    assert count_characters(words) == Counter("".join(word * count for word, count in words.items()))


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 30)), st.integers(1, 60))
def test_repeated_words(words: dict[str, int], size: int) -> None:
    yielded = list(repeat_words(words, size))
    assert Counter(word for text in yielded for word in text.split()) == words
    assert all(len(text) <= 2 * size + max(map(len, words)) + 1 for text in yielded)
