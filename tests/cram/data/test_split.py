from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data import split as module
from cram.data.sources import Document
from cram.data.split import HeldOutSplit


def run(texts: list[str], share: float) -> tuple[list[str], HeldOutSplit]:
    split = HeldOutSplit(share)
    return [document.text for document in split.training(Document(text, "") for text in texts)], split


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@given(st.lists(st.sampled_from("abcdefghijklmnop"), max_size=40), st.sampled_from([0.0, 0.02, 0.3, 0.9]))
def test_a_text_is_on_one_side_only_and_nothing_is_lost(texts: list[str], share: float) -> None:
    training, split = run(texts, share)
    held_out = [document.text for document in split.stored()]
    assert not set(training) & set(held_out)
    assert set(training) | set(held_out) == set(texts)
    assert len(training) + split.found == len(texts)
    below = {text for text in texts if int(hash_of(text)[:16], 16) < int(share * 2**64)}
    assert set(held_out) == (below or set(sorted(texts, key=hash_of)[:1]))
    assert [document.hash for document in split.stored()] == sorted(map(hash_of, set(held_out)))


def test_the_share_is_met() -> None:
    texts = [f"document {number}" for number in range(20_000)]
    training, split = run(texts, 0.05)
    assert 0.04 < split.found / len(texts) < 0.06
    kept = set(training)
    assert sorted(training) == sorted(text for text in texts if text in kept)


def test_only_the_lowest_hashes_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STORED", 10)
    texts = [f"document {number}" for number in range(500)] * 2
    _, split = run(texts, 0.999999)
    assert [document.text for document in split.stored()] == sorted(set(texts), key=hash_of)[:10]
    assert split.found == 1000
