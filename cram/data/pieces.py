"""How many bytes of a text each of its tokens stands for, so that losses can be divided by the bytes of the text."""

from collections.abc import Sequence


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
