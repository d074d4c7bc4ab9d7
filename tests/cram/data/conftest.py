import pytest

from cram.data.preparation import chunks, first_pass, row_writer


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants such that 300 documents make several chunks, segments and shards."""
    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 16)
    monkeypatch.setattr(first_pass, "SEGMENT_DOCUMENTS", 64)
    monkeypatch.setattr(row_writer, "TOKENS_PER_SHARD", 64 * 32)
    monkeypatch.setattr(row_writer, "PART_BYTES", 5_000)
