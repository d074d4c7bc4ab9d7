"""Warnings for text that the settings for English do not suit."""

import unicodedata

from cram.config.data import WordPieceConfig

MOST = 0.5  # of the characters that are not ASCII
ACCENTS = 0.005  # of the characters: German has three times as many, English a tenth
LOST = 0.05  # of the characters
SETTINGS = "wordpiece.lowercase=false wordpiece.strip_accents=false"


def language_warnings(texts: list[str], wordpiece: WordPieceConfig | None, lost: float) -> list[str]:
    """What a tokenizer takes away from some texts, and what to do about it; empty for English.

    Args:
        wordpiece: the settings that it was trained with; None for a tokenizer that was given.
        lost: the share of `lost_characters`.
    """
    said = [] if wordpiece is None else _settings("".join("".join(texts).split()), wordpiece)
    if lost > LOST:
        remedy = "give a tokenizer made for such text"
        if wordpiece:
            remedy = f"see wordpiece.*, or {remedy} with tokenizer=FILE"
        said.append(
            f"{lost:.0%} of the text's characters are lost: dropped, or behind the unknown token, where no model can "
            f"learn them; {remedy}"
        )
    return said


def _settings(text: str, wordpiece: WordPieceConfig) -> list[str]:
    foreign = (len(text) - len(text.encode("ascii", "ignore"))) / max(1, len(text))
    if foreign > MOST and (wordpiece.lowercase or wordpiece.strip_accents):
        return [
            f"{foreign:.0%} of the text's characters are not ASCII, and the settings are those for English: say "
            f"{SETTINGS} to keep the text as it is, and data.filters.compressibility=null where a letter says more "
            "than an English one\na script without spaces between words may need a tokenizer of its own, tokenizer=FILE"
        ]
    marks = sum(unicodedata.category(letter) == "Mn" for letter in unicodedata.normalize("NFD", text))
    if wordpiece.strip_accents and marks > ACCENTS * len(text):
        return [
            f"{marks / len(text):.1%} of the text's letters have accents, which wordpiece.strip_accents=true drops: "
            f"say {SETTINGS} to keep them and upper case"
        ]
    return []
