"""Chunks of documents: what one worker process handles at once."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from cram.data.text.document import byte_size

CHUNK_DOCUMENTS = 1000
CHUNK_BYTES = 2_000_000  # text; an encoding takes hundreds of bytes a token, so a chunk of books holds fewer documents

Item = TypeVar("Item")


def split_into_chunks(items: Iterable[tuple[str, Item]]) -> Iterator[list[Item]]:
    """Collect items into chunks of 1000 items or two million bytes of text, whichever is reached first.

    Where a chunk ends depends only on the items since the chunk before it, so work can be continued after any chunk.

    Args:
        items: pairs of a text, whose bytes count, and what belongs into the chunk.
    """
    return (chunk for chunk, _ in split_by_size((byte_size(text), item) for text, item in items))


def split_by_size(items: Iterable[tuple[int, Item]]) -> Iterator[tuple[list[Item], int]]:
    """Collect items as `split_into_chunks` does.

    Args:
        items: pairs of the bytes of a text, and what belongs into the chunk.

    Yields:
        A chunk and the bytes of its texts.
    """
    chunk: list[Item] = []
    total = 0
    for size, item in items:
        chunk.append(item)
        total += size
        if len(chunk) >= CHUNK_DOCUMENTS or total >= CHUNK_BYTES:
            yield chunk, total
            chunk, total = [], 0
    if chunk:
        yield chunk, total
