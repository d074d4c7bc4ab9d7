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
    chunk: list[Item] = []
    size = 0
    for text, item in items:
        chunk.append(item)
        size += byte_size(text)
        if len(chunk) >= CHUNK_DOCUMENTS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
