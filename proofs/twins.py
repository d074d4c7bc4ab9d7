"""Twins of documents: the same text with other characters, which most readers take for the same text."""

import random
import unicodedata
from collections.abc import Callable
from typing import Literal

DOCUMENTS = 600
LANGUAGES = (
    "the river walks over stone and every morning first office staff carries water from market square toward houses",
    "été où déjà forêt élève après très père même être français garçon où âge île hôtel château élan",
    "straße über grün schön früh wörter müssen äpfel größe löwe tür könig bäume fähre höhle",
)
Transform = Callable[[str], str]


def insert_in_words(character: str) -> Transform:
    """Return a function that inserts a character into each word of more than four letters."""
    return lambda text: " ".join(word[:3] + character + word[3:] if len(word) > 4 else word for word in text.split())


def normalize(form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> Transform:
    """Return a function that brings a text into a Unicode normalization form."""
    return lambda text: unicodedata.normalize(form, text)


def strip_accents(text: str) -> str:
    """Remove the accents of a text."""
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))


def to_full_width(text: str) -> str:
    """Replace ASCII characters by their full-width forms."""
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


TRANSFORMS: dict[str, Transform] = {
    "soft hyphen": insert_in_words("\u00ad"),
    "zero-width space": insert_in_words("\u200b"),
    "zero-width joiner": insert_in_words("\u200d"),
    "word joiner": insert_in_words("\u2060"),
    "mark of direction": insert_in_words("\u200f"),
    "byte order mark": insert_in_words("\ufeff"),
    "NFD": normalize("NFD"),
    "NFKD": normalize("NFKD"),
    "NFKC": lambda text: normalize("NFKC")(text) + " ",
    "ligatures": lambda text: text.replace("ffi", "\ufb03").replace("fi", "\ufb01"),
    "full width": to_full_width,
    "no accents": strip_accents,
    "upper case": str.upper,
    "white space": lambda text: text.replace(" ", " \u00a0\t"),
    "line ends": lambda text: text.replace(" ", "\r\n"),
    "punctuation": lambda text: text.replace(" ", " ... "),
    "identical": str,
}


def make_twins(documents: int = DOCUMENTS) -> list[str]:
    """Make documents of invented sentences, each followed by its twin. The transforms take turns."""
    source = random.Random(0)
    transforms = list(TRANSFORMS.values())
    texts = []
    for number in range(documents):
        words = LANGUAGES[number % len(LANGUAGES)].split()
        text = " ".join(source.choices(words, k=source.randint(20, 150)))
        texts += [text, transforms[number // len(LANGUAGES) % len(transforms)](text)]
    return texts
