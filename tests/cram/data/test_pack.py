import itertools
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cram.data.pack import Packer

PAD = 0
documents_of_tokens = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=40), max_size=30)


def packed(documents: list[list[int]], seq_len: int, take_after: set[int]) -> tuple[np.ndarray, np.ndarray]:
    packer = Packer(seq_len, PAD)
    parts = []
    for number, document in enumerate(documents):
        packer.add(document)
        if number in take_after:
            parts.append(packer.take())
            assert packer.pending < seq_len
    parts.append(packer.finish())
    assert packer.pending == 0
    tokens, borders = zip(*parts, strict=True)
    return np.concatenate(tokens), np.concatenate(borders)


@given(documents_of_tokens, st.integers(2, 33), st.sets(st.integers(0, 30)))
def test_every_token_once_in_order_with_its_borders(
    documents: list[list[int]], seq_len: int, take_after: set[int]
) -> None:
    tokens, numbers = packed(documents, seq_len, take_after)
    owners = [number for number, document in enumerate(documents) for _ in document]
    assert tokens.dtype == numbers.dtype == np.int32
    assert tokens.shape == numbers.shape == (-(-len(owners) // seq_len), seq_len)
    assert tokens.ravel()[: len(owners)].tolist() == list(itertools.chain.from_iterable(documents))
    assert (tokens.ravel()[len(owners) :] == PAD).all()
    owners += [len(documents)] * (tokens.size - len(owners))  # padding is a document of its own
    for row, numbers_of_row in enumerate(numbers.tolist()):
        here = owners[row * seq_len : (row + 1) * seq_len]
        order = list(dict.fromkeys(here))
        assert numbers_of_row == [order.index(owner) for owner in here]


def test_a_long_document_starts_again_at_zero_in_each_row() -> None:
    tokens, documents = packed([[1, 2], [3, 4, 5, 6, 7, 8], [9]], 4, set())
    assert tokens.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, PAD, PAD, PAD]]
    assert documents.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]


def test_nothing_gives_no_row_and_empty_documents_leave_no_trace() -> None:
    packer = Packer(4, PAD)
    packer.add([])
    assert packer.take()[0].shape == packer.finish()[0].shape == (0, 4)


def test_packing_keeps_up_with_the_tokenizer() -> None:
    documents = [list(range(400))] * 5000
    packer = Packer(128, PAD)
    began = time.perf_counter()
    for start in range(0, len(documents), 1000):
        for document in documents[start : start + 1000]:
            packer.add(document)
        packer.take()
    seconds = time.perf_counter() - began
    assert 400 * len(documents) / seconds > 2e6, "tokens per second; a tokenizer gives about a million"
