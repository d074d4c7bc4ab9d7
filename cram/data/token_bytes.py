"""How much text tokens stand for: the bytes of each token, by which losses are divided, and the share that is lost."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer


def count_token_bytes(text: str, offsets: Sequence[tuple[int, int]], added: Sequence[int]) -> list[int]:
    """Distribute the UTF-8 bytes of a text over its tokens; each byte belongs to exactly one token.

    If tokens share a character (byte-level pieces, the parts of a Hangul syllable, the mark of a word's beginning), the
    first of them gets its bytes. Text between two tokens, such as white space and characters that the normalizer drops,
    belongs to the second one, and text after the last token belongs to the last one.

    Args:
        text: the encoded text.
        offsets: (begin, end) of each token, in characters of the text. They may overlap, leave gaps and go back.
        added: 1 for each token that the post-processor added, which has no bytes; else 0.

    Returns:
        The bytes of each token. Their sum is `len(text.encode())`, or 0 if every token was added.
    """
    byte_counts = [0] * len(offsets)
    counted, last = 0, None  # characters whose bytes are counted, and the index of the last token of the text
    for index, ((_, end), is_added) in enumerate(zip(offsets, added, strict=True)):
        if not is_added:
            byte_counts[index] = len(text[counted:end].encode())
            counted, last = max(counted, end), index
    if last is not None:
        byte_counts[last] += len(text[counted:].encode())
    return byte_counts


def measure_lost_characters(tokenizer: Tokenizer, unknown: int | None, texts: Iterable[str]) -> float:
    """Return the share of the texts' characters that no token stands for, not counting white space.

    Characters are lost if the normalizer or the model drops them, or if the unknown token (id `unknown`) stands for
    them.
    """
    represented = total = 0
    for text in texts:
        total += _count_visible(text)
        encoding = tokenizer.encode(text)
        counted = 0
        for number, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if number != unknown:
                represented += _count_visible(text[max(begin, counted) : end])
            counted = max(counted, end)
    return 1.0 - represented / total if total else 0.0


def _count_visible(text: str) -> int:
    return sum(map(len, text.split()))
