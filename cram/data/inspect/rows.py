"""Rows of a shard folder as text, document by document."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens

ROWS_SHOWN = 3


@dataclass(frozen=True)
class RowDocument:
    """A document, or the part of one that is in a row.

    Attributes:
        text: its tokens as text, with the special ones.
        body: the same without the tokens that frame it.
        opening, closing: the tokens that frame it; empty where it begins or ends in another row.
        tokens: how many there are.
        begins: whether it begins in this row. Without a token that begins documents this is not known, and True.
        ends: whether it ends in this row.
    """

    text: str
    body: str
    opening: str
    closing: str
    tokens: int
    begins: bool
    ends: bool


@dataclass(frozen=True)
class RowText:
    """A row as text.

    Attributes:
        number: of the row.
        documents: in their order.
        padding: how many tokens at its end are padding.
    """

    number: int
    documents: Sequence[RowDocument]
    padding: int

    @property
    def tokens(self) -> int:
        """How many tokens are not padding."""
        return sum(document.tokens for document in self.documents)


def read_row(shards: ShardSet, tokenizer: Tokenizer, number: int) -> RowText:
    """Read a row as text.

    Args:
        shards: the shard folder.
        tokenizer: of its rows.
        number: of the row, from 0.
    """
    special = SpecialTokens.of(tokenizer)
    (tokens,), (documents,) = shards.read(np.array([number]))
    is_text = tokens != special.pad
    pieces = np.split(tokens[is_text], np.flatnonzero(np.diff(documents[is_text])) + 1)
    texts = [_read_document(piece.tolist(), tokenizer, special) for piece in pieces]
    return RowText(number, texts, padding=len(tokens) - int(is_text.sum()))


def _read_document(ids: list[int], tokenizer: Tokenizer, special: SpecialTokens) -> RowDocument:
    opened, closed = ids[0] == special.cls, ids[-1] == special.sep
    return RowDocument(
        text=tokenizer.decode(ids, skip_special_tokens=False),
        body=tokenizer.decode(ids[opened : len(ids) - closed], skip_special_tokens=False),
        opening=str(tokenizer.id_to_token(ids[0])) if opened else "",
        closing=str(tokenizer.id_to_token(ids[-1])) if closed else "",
        tokens=len(ids),
        begins=opened or special.cls is None,
        ends=closed,
    )


def spread_rows(rows: int) -> list[int]:
    """Choose the numbers of up to `ROWS_SHOWN` rows that are spread evenly over a folder of `rows` rows."""
    return [int(row) for row in np.unique((np.arange(ROWS_SHOWN) * 2 + 1) * rows // (2 * ROWS_SHOWN))]
