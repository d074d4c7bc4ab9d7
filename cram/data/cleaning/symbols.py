"""Count the symbols and digits of a text."""

import sys
import unicodedata
from collections import Counter
from functools import cache

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.columns import BEYOND_ASCII, Mask, TextColumn

_ASCII = bytes(range(128))
_PUNCTUATION = ".,;:!?'\"()[]-/&%$"
_ASCII_SYMBOLS = bytes(
    code for code in _ASCII if not (chr(code).isalnum() or chr(code).isspace() or chr(code) in _PUNCTUATION)
)
_SYMBOL_CATEGORIES = ("Sm", "Sk", "So", "Cc", "Co", "Cn")
_ASCII_DIGITS = b"0123456789"
_SYMBOL, _DIGIT, _UNKNOWN = 1, 2, 4


def count_symbols_and_digits(text: str) -> tuple[int, int]:
    r"""Return how many characters of a text are symbols, and how many are digits.

    Symbols are # * + < = > @ \ ^ _ ` { | } ~ and control characters. Beyond ASCII they are the characters that
    Unicode lists as mathematical or other symbols, private or unassigned. Letters, marks and punctuation of any script
    and signs of currencies are not symbols.

    Source: the ratio of special characters in ROOTS, Laurençon et al. 2022, arXiv:2303.03915. Changed: ordinary
    punctuation is not special, and digits are counted apart. Gopher's rules of symbols (datatrove's
    GopherQualityFilter) know # and the ellipsis only, come with rules that drop one-line reviews, and take 60 times
    as long.
    """
    data = text.encode()
    symbols = len(data) - len(data.translate(None, _ASCII_SYMBOLS))
    digits = len(data) - len(data.translate(None, _ASCII_DIGITS))
    if len(data) > len(text):
        for character, count in Counter(data.translate(None, _ASCII).decode()).items():
            symbols += count * _is_symbol(character)
            digits += count * character.isdecimal()
    return symbols, digits


def have_more_symbols(share: float, column: TextColumn) -> Mask:
    """Return of which texts more than a share of the characters are symbols: bool [texts]."""
    return _have_more(share, column, _ASCII_SYMBOLS, _SYMBOL)


def have_more_digits(share: float, column: TextColumn) -> Mask:
    """Return of which texts more than a share of the characters are digits: bool [texts]."""
    return _have_more(share, column, _ASCII_DIGITS, _DIGIT)


def _have_more(share: float, column: TextColumn, ascii_codes: bytes, kind: int) -> Mask:
    # Most English texts have no more than their share even if each character beyond ASCII counts.
    most: Mask = column.count(ascii_codes + BEYOND_ASCII) > share * column.characters
    if not most.any():
        return most
    codes, owners = column.beyond_ascii
    kinds = _kinds()
    for code in np.unique(codes[kinds[codes] == _UNKNOWN]).tolist():
        kinds[code] = _SYMBOL * _is_symbol(chr(code)) + _DIGIT * chr(code).isdecimal()
    others = np.bincount(owners[kinds[codes] == kind], minlength=len(column.texts))
    more: Mask = column.count(ascii_codes) + others > share * column.characters
    return more


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Make the table of what each character is. The entries are filled in when the characters occur."""
    return np.full(sys.maxunicode + 1, _UNKNOWN, np.uint8)


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) in _SYMBOL_CATEGORIES and not character.isspace()
