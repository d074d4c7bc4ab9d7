"""Cut lines of boilerplate out of a text: notices of cookies, terms of use, privacy and JavaScript."""

import re
from bisect import bisect

import numpy as np

from cram.data.cleaning.columns import Mask, TextColumn

# The longest lines that are cut, in words. If a whole page is one line, it must not be cut because of one notice in it.
LONGEST_POLICY_NOTICE, LONGEST_SCRIPT_NOTICE, LONGEST_LABEL = 100, 30, 10

_HINTS = (b"cookie", b"privacy policy", b"terms of use", b"javascript")
_POLICY = re.compile(r"\b(?:terms of use|privacy policy|cookie policy|uses? cookies|use of cookies)\b")
_READER = re.compile(
    r"\b(?:you|your|please|we use|this (?:web ?)?site|this page|our (?:terms|privacy|cookies?|use|(?:web ?)?site))\b"
)
_SWITCH = re.compile(r"\b(?:enabled?|disabled|turn(?:ed)? on|requires?|required)\b")
_SENTENCE_END = (".", "!", "?", ":", ";", ",")


def cut_boilerplate(text: str) -> str:
    """Return the text without the lines that are notices; the same object if there are none.

    The other lines keep their white space, unlike in datatrove's C4QualityFilter.

    Source: C4, Raffel et al. 2020, arXiv:1910.10683, section 2.2, with the phrases of its code, c4_utils.py of
    tensorflow_datasets. Changed: C4 cuts every line with such a phrase, and so every sentence about JavaScript in an
    encyclopedia. Here a line must also address its reader (you, please, this site, we use), or be a label: a few
    words that do not end like a sentence. A line with "javascript" must also say that it is required, enabled or
    disabled.
    """
    lowered = text.encode().lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    lines = text.split("\n")
    lines_kept = [line for line in lines if not _is_notice(line.strip().lower())]
    return "\n".join(lines_kept) if len(lines_kept) < len(lines) else text


def has_hints(column: TextColumn) -> Mask:
    """Return which texts contain one of the words that every notice has: bool [texts]."""
    found = np.zeros(len(column.texts), bool)
    lowered, starts = column.data.lower(), column.starts.tolist()
    for hint in _HINTS:
        place = lowered.find(hint)
        while place >= 0:
            owner = bisect(starts, place) - 1
            found[owner] = True
            place = lowered.find(hint, starts[owner + 1])
    return found


def _is_notice(line: str) -> bool:
    if _POLICY.search(line):
        longest = LONGEST_POLICY_NOTICE
    elif "javascript" in line and _SWITCH.search(line):
        longest = LONGEST_SCRIPT_NOTICE
    else:
        return False
    words = len(line.split())
    is_label = words <= LONGEST_LABEL and not line.endswith(_SENTENCE_END)
    return words <= longest and (is_label or bool(_READER.search(line)))
