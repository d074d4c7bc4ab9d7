"""What of a text its tokens stand for: the bytes of each, so that losses can be divided by them, and what is lost."""

from collections.abc import Iterable, Sequence
from typing import Any


def piece_bytes(text: str, offsets: Sequence[tuple[int, int]], added: Sequence[int]) -> list[int]:
    """Partitions the UTF-8 bytes of a text over its tokens: each byte belongs to exactly one of them.

    Tokens that share a character (byte-level pieces, the parts of a Hangul syllable, the mark for a word's beginning)
    are counted once: the first one has its bytes. What lies between two tokens, such as white space and characters
    that the normalizer drops, belongs to the second one, and what comes after the last token belongs to the last.

    Args:
        offsets: (begin, end) of each token, in characters of the text. They may overlap, leave gaps and go back.
        added: 1 for each token that the post-processor added, which has no bytes; else 0.

    Returns:
        bytes of each token; their sum is `len(text.encode())`, or 0 where every token was added.
    """
    sizes = [0] * len(offsets)
    done, last = 0, None
    for place, ((_, end), extra) in enumerate(zip(offsets, added, strict=True)):
        if not extra:
            sizes[place] = len(text[done:end].encode())
            done, last = max(done, end), place
    if last is not None:
        sizes[last] += len(text[done:].encode())
    return sizes


def lost_characters(tokenizer: Any, unknown: int | None, texts: Iterable[str]) -> float:
    """The share of the texts' characters, white space left out, that no token but the unknown one stands for.

    They are behind the unknown token, or the normalizer drops them, or the model does.
    """
    kept = total = 0
    for text in texts:
        total += _visible(text)
        encoding = tokenizer.encode(text)
        done = 0
        for number, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if number != unknown:
                kept += _visible(text[max(begin, done) : end])
            done = max(done, end)
    return 1.0 - kept / total if total else 0.0


def _visible(text: str) -> int:
    return sum(map(len, text.split()))
