import pytest

from cram.config.data import WordPieceConfig
from cram.data.preparation.language import language_warnings

ENGLISH = [
    "It isn't a cliché: \u201cthe old river\u201d is wide \u2014 and the café is open. "
    + "Rain fell on the town. " * 30
]
GERMAN = ["Die Vögel über der Brücke hören früher auf, während die Mädchen schöne Bücher lesen."]
THAI = ["\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e40\u0e1b\u0e47\u0e19\u0e20\u0e32\u0e29\u0e32 word"]
KOREAN = ["한국어 문장은 음절로 쓴다. 문장은 길다."]
AS_IT_IS = "wordpiece.lowercase=false wordpiece.strip_accents=false"


@pytest.mark.parametrize("texts", [ENGLISH, [""], [" \n"]])
def test_there_is_no_warning_for_english(texts: list[str]) -> None:
    assert language_warnings(texts, WordPieceConfig(), 0.01) == []


def test_dropped_accents_give_a_warning_with_a_remedy() -> None:
    (said,) = language_warnings(GERMAN, WordPieceConfig(), 0.0)
    assert said.startswith("12.7% of the text's letters have accents, which wordpiece.strip_accents=true drops")
    assert AS_IT_IS in said
    assert language_warnings(GERMAN, WordPieceConfig(strip_accents=False), 0.0) == []


@pytest.mark.parametrize("texts", [THAI, KOREAN])
def test_text_that_is_mostly_not_ascii_needs_other_settings(texts: list[str]) -> None:
    (said,) = language_warnings(texts, WordPieceConfig(), 0.0)
    assert "of the text's characters are not ASCII, and the settings are those for English" in said
    assert AS_IT_IS in said
    assert "tokenizer=FILE" in said
    assert len(said.splitlines()) == 2
    assert language_warnings(texts, WordPieceConfig(lowercase=False, strip_accents=False), 0.0) == []
    assert language_warnings(texts, None, 0.0) == []  # a tokenizer that was given


def test_a_large_share_of_lost_characters_gives_a_warning() -> None:
    settings = WordPieceConfig(lowercase=False, strip_accents=False)
    (said,) = language_warnings(THAI, settings, 0.7)
    assert said.startswith("70% of the text's characters are lost: they are dropped or become the unknown token")
    assert said.endswith("see wordpiece.*, or give a tokenizer made for such text with tokenizer=FILE")
    (said,) = language_warnings(THAI, None, 0.7)
    assert said.endswith("learn them; give a tokenizer made for such text")
