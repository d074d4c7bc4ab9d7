"""Document filters: which documents are dropped and which lines are cut, each rule with its source."""

import re
import unicodedata
from collections import Counter

from cram.config.data import FilterConfig
from cram.data.cleaning.repetition import is_repetitive
from cram.data.cleaning.word_hashes import Words

# Why a document is dropped: the key that sets the filter, in the order in which they are asked.
REASONS = ("min_words", "max_words", "symbols", "digits", "repetition", "compressibility")


class Filters:
    """What `data.filters` says; cheap to make and to pickle."""

    def __init__(self, config: FilterConfig):
        self._config = config

    def clean(self, text: str) -> str:
        """The text without its boilerplate lines: the same object where there is none, else a shorter text."""
        return cut_boilerplate(text) if self._config.boilerplate else text

    def refuse(self, text: str, words: Words) -> str | None:
        """Which of `REASONS` a cleaned text is dropped for, the first that holds; None to keep it.

        `words` are the words of `text`. Compressibility is judged by `refuse_tokens`, when the tokens are known.
        """
        config, count = self._config, len(words.words)
        if count < config.min_words:
            return "min_words"
        if config.max_words is not None and count > config.max_words:
            return "max_words"
        if config.symbols is not None or config.digits is not None:
            symbols, digits = count_symbols_and_digits(text)
            if config.symbols is not None and symbols > config.symbols * len(text):
                return "symbols"
            if config.digits is not None and digits > config.digits * len(text):
                return "digits"
        return "repetition" if config.repetition and is_repetitive(text, words) else None

    def refuse_tokens(self, tokens: int, characters: int) -> str | None:
        """`"compressibility"`, or None where `tokens` < the key's value x `characters`.

        Both count the cleaned text, [CLS] and [SEP] left out.

        Source: Geiping and Goldstein 2022, arXiv:2212.14034, section 4.4: 0.3 in the text, 0.25 in the code,
        github.com/JonasGeiping/cramming. Changed: the tokenizer is the run's own instead of ALBERT's, so that a
        threshold goes with a vocabulary (0.3 drops 0.5 % of an English corpus at 32768 pieces and 18 % at 4096), and
        [CLS] and [SEP], which weigh on short documents only, are not counted.
        """
        most = self._config.compressibility
        return "compressibility" if most is not None and tokens >= most * characters else None


# The longest lines that are cut, in words: where a whole page is one line, it must not go with its notice.
POLICY_NOTICE, SCRIPT_NOTICE, LABEL = 100, 30, 10

_HINTS = (b"cookie", b"privacy policy", b"terms of use", b"javascript")
_POLICY = re.compile(r"\b(?:terms of use|privacy policy|cookie policy|uses? cookies|use of cookies)\b")
_READER = re.compile(
    r"\b(?:you|your|please|we use|this (?:web ?)?site|this page|our (?:terms|privacy|cookies?|use|(?:web ?)?site))\b"
)
_SWITCH = re.compile(r"\b(?:enabled?|disabled|turn(?:ed)? on|requires?|required)\b")
_SENTENCE_END = (".", "!", "?", ":", ";", ",")


def cut_boilerplate(text: str) -> str:
    """The text without the lines that are notices of cookies, terms of use, privacy or JavaScript.

    What is left keeps its white space, unlike in datatrove's C4QualityFilter.

    Source: C4, Raffel et al. 2020, arXiv:1910.10683, section 2.2, with the phrases of its code, c4_utils.py of
    tensorflow_datasets. Changed: C4 cuts every line with such a phrase, and so every sentence about JavaScript in an
    encyclopedia. Here a line must also speak to its reader (you, please, this site, we use) or be a label of a few
    words that is no sentence; and with "javascript" it must say that this is required, enabled or disabled.
    """
    lowered = text.encode().lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    lines = text.split("\n")
    kept = [line for line in lines if not _is_notice(line.strip().lower())]
    return "\n".join(kept) if len(kept) < len(lines) else text


def _is_notice(line: str) -> bool:
    if _POLICY.search(line):
        longest = POLICY_NOTICE
    elif "javascript" in line and _SWITCH.search(line):
        longest = SCRIPT_NOTICE
    else:
        return False
    words = len(line.split())
    return words <= longest and bool(_READER.search(line) or (words <= LABEL and not line.endswith(_SENTENCE_END)))


_ASCII = bytes(range(128))
_PUNCTUATION = ".,;:!?'\"()[]-/&%$"
_SYMBOLS = bytes(
    code for code in _ASCII if not (chr(code).isalnum() or chr(code).isspace() or chr(code) in _PUNCTUATION)
)
_SYMBOL_CATEGORIES = ("Sm", "Sk", "So", "Cc", "Co", "Cn")


def count_symbols_and_digits(text: str) -> tuple[int, int]:
    """How many characters are symbols, and how many are digits.

    Symbols are # * + < = > @ \\ ^ _ ` { | } ~, control characters and, beyond ASCII, all that Unicode counts as
    mathematical or other symbols, private or unassigned. Letters and marks of any script, its punctuation, and
    currencies are none.

    Source: the ratio of special characters in ROOTS, Laurençon et al. 2022, arXiv:2303.03915. Changed: ordinary
    punctuation is not special, and digits are counted apart. Gopher's rules of symbols (datatrove's
    GopherQualityFilter) know # and the ellipsis only, come with rules that refuse one-line reviews, and take 60 times
    as long.
    """
    data = text.encode()
    symbols = len(data) - len(data.translate(None, _SYMBOLS))
    digits = len(data) - len(data.translate(None, b"0123456789"))
    if len(data) > len(text):
        for character, count in Counter(data.translate(None, _ASCII).decode()).items():
            symbol = unicodedata.category(character) in _SYMBOL_CATEGORIES and not character.isspace()
            symbols += count * symbol
            digits += count * character.isdecimal()
    return symbols, digits
