"""Count the symbols and digits of a text."""

import unicodedata
from collections import Counter

_ASCII = bytes(range(128))
_PUNCTUATION = ".,;:!?'\"()[]-/&%$"
_ASCII_SYMBOLS = bytes(
    code for code in _ASCII if not (chr(code).isalnum() or chr(code).isspace() or chr(code) in _PUNCTUATION)
)
_SYMBOL_CATEGORIES = ("Sm", "Sk", "So", "Cc", "Co", "Cn")


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
    digits = len(data) - len(data.translate(None, b"0123456789"))
    if len(data) > len(text):
        for character, count in Counter(data.translate(None, _ASCII).decode()).items():
            is_symbol = unicodedata.category(character) in _SYMBOL_CATEGORIES and not character.isspace()
            symbols += count * is_symbol
            digits += count * character.isdecimal()
    return symbols, digits
