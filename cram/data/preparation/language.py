"""Warns if a tokenizer made for English does not suit the text."""

import unicodedata

from cram.config.data import WordPieceConfig

# Shares of the characters from which on there is a warning.
FOREIGN = 0.5  # not ASCII
ACCENTS = 0.005  # accents: German has three times as many, English a tenth
LOST = 0.05  # lost by the tokenizer
SETTINGS = "wordpiece.lowercase=false wordpiece.strip_accents=false"


def language_warnings(texts: list[str], wordpiece: WordPieceConfig | None, lost: float) -> list[str]:
    """Return warnings on what a tokenizer removes from texts, with a remedy; none for English.

    Args:
        texts: a sample of the text.
        wordpiece: the settings that the tokenizer was trained with; None if it was loaded.
        lost: the share of characters that `measure_lost_characters` returns.
    """
    warnings = [] if wordpiece is None else _check_settings("".join("".join(texts).split()), wordpiece)
    if lost > LOST:
        remedy = "give a tokenizer made for such text"
        if wordpiece:
            remedy = f"see wordpiece.*, or {remedy} with tokenizer=FILE"
        warnings.append(
            f"{lost:.0%} of the text's characters are lost: they are dropped or become the unknown token, so no model "
            f"can learn them; {remedy}"
        )
    return warnings


def _check_settings(text: str, wordpiece: WordPieceConfig) -> list[str]:
    foreign = (len(text) - len(text.encode("ascii", "ignore"))) / max(1, len(text))
    if foreign > FOREIGN and (wordpiece.lowercase or wordpiece.strip_accents):
        return [
            f"{foreign:.0%} of the text's characters are not ASCII, and the settings are those for English: use "
            f"{SETTINGS} to keep the text as it is, and data.filters.compressibility=null if a character carries more "
            "than an English letter\na script without spaces between words may need its own tokenizer, tokenizer=FILE"
        ]
    marks = sum(unicodedata.category(letter) == "Mn" for letter in unicodedata.normalize("NFD", text))
    if wordpiece.strip_accents and marks > ACCENTS * len(text):
        return [
            f"{marks / len(text):.1%} of the text's letters have accents, which wordpiece.strip_accents=true drops: "
            f"use {SETTINGS} to keep them and upper case"
        ]
    return []
