from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.preparation import chunks
from cram.data.preparation.chunks import split_into_chunks


@pytest.fixture(scope="module")
def _small_chunks() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(chunks, "CHUNK_BYTES", 20)
    patch.setattr(chunks, "CHUNK_DOCUMENTS", 4)
    yield
    patch.undo()


@pytest.mark.usefixtures("_small_chunks")
@given(st.lists(st.text("aé", max_size=24), max_size=40))
def test_chunks_after_any_chunk_are_the_same_as_without_interruption(texts: list[str]) -> None:
    items = list(enumerate(texts))
    whole = list(split_into_chunks((text, (number, text)) for number, text in items))
    assert [item for chunk in whole for item in chunk] == items
    for number, chunk in enumerate(whole):
        sizes = [len(text.encode()) for _, text in chunk]
        assert len(chunk) <= 4 and sum(sizes[:-1]) < 20
        assert number == len(whole) - 1 or len(chunk) == 4 or sum(sizes) >= 20
    done = 0
    for number, chunk in enumerate(whole):
        assert list(split_into_chunks((text, (place, text)) for place, text in items[done:])) == whole[number:]
        done += len(chunk)
