"""Windows-1252 text that was read as Latin-1: its dashes, quotation marks and ellipses are C1 controls.

Windows-1252 and Latin-1 differ in the bytes 80 to 9F. Text whose encoding was mistaken has the controls U+0080 to
U+009F where punctuation was. BERT's normalizer deletes controls, so "oh no", U+0085, "he" would become "oh nohe".
Browsers read the numeric references `&#128;` to `&#159;` of HTML by the same table (WHATWG, numeric character reference
end state).

U+0085 is also NEL, a line end in text that comes from EBCDIC. It cannot be told from an ellipsis in general. In English
web text it stands between words and before quotation marks and brackets: of 1,167 in film reviews none ends a line. It
becomes an ellipsis, which keeps words apart where NEL would have been deleted. Only after a carriage return it is
certainly a line end (XML 1.1, 2.11) and becomes a line feed.
"""

import re

UNDEFINED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # Windows-1252 has no characters for these bytes
_CHARACTERS = {code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in UNDEFINED}
_find_in_bytes = re.compile(b"\xc2[\x80-\x9f]").search  # twice as fast as a search in a str


def contains_c1_controls(data: bytes) -> bool:
    """Return whether a text in UTF-8 contains C1 controls."""
    return _find_in_bytes(data) is not None


def fix_c1_controls(text: str) -> str:
    """Replace the C1 controls that are characters of Windows-1252 by these characters.

    The text keeps its length in characters. If there is nothing to replace, the same object is returned.
    """
    if text.isascii() or not contains_c1_controls(text.encode()):
        return text
    fixed = text.replace("\r\x85", "\r\n").translate(_CHARACTERS)
    return text if fixed == text else fixed


def find_first_difference(text: str, fixed: str) -> int:
    """Return the place of the first character in which two texts of the same length differ, or their length."""
    return next((place for place, (old, new) in enumerate(zip(text, fixed, strict=True)) if old != new), len(text))


def count_fixed(text: str, fixed: str) -> int:
    """Return how many characters of a text were replaced in `fixed`."""
    return 0 if fixed is text else sum(map(str.__ne__, text, fixed))
