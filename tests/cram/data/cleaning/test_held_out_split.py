from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning import held_out_split as split
from cram.data.cleaning.held_out_split import (
    HeldOutTexts,
    choose_held_out,
    describe_shortage,
    hash_text,
    lies_below_share,
)

some_hashes = st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 20)), max_size=30)


@given(st.text())
def test_the_hash_begins_like_the_sha256(text: str) -> None:
    assert f"{hash_text(text):016x}" == sha256(text.encode()).hexdigest()[:16]


@given(some_hashes, st.sampled_from([0.0, 1e-18, 0.02, 0.5, 1 - 1e-16]))
def test_below_the_limit_or_the_lowest(hashes: list[int], share: float) -> None:
    mask = choose_held_out(np.array(hashes, np.uint64), share)
    assert mask.dtype == bool and mask.shape == (len(hashes),)
    below = [number for number in hashes if number < int(share * 2**64)]
    held_out = [number for number, out in zip(hashes, mask, strict=True) if out]
    assert lies_below_share(np.array(hashes, np.uint64), share).sum() == len(below)
    assert held_out == (below or [number for number in hashes if number == min(hashes)])


@pytest.mark.parametrize("share", [0.005, 0.3])
def test_the_share_is_met(share: float) -> None:
    hashes = np.array([hash_text(f"document {number}") for number in range(20_000)], np.uint64)
    assert abs(choose_held_out(hashes, share).mean() - share) < 5 * (share / len(hashes)) ** 0.5
    borders = np.array([(1 << 62) - 1, 1 << 62], np.uint64)
    assert lies_below_share(borders, 0.25).tolist() == [True, False]


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.text(min_size=1), max_size=12), st.integers(0, 12))
def test_stored_texts_are_bounded_and_do_not_depend_on_their_order(texts: dict[int, str], cut: int) -> None:
    first, second = dict(list(texts.items())[:cut]), dict(list(texts.items())[cut:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "MOST_STORED", 5)
        patch.setattr(split, "MOST_BYTES", 10)
        stored = split.choose_stored(texts)
        assert split.choose_stored({**split.choose_stored(first), **split.choose_stored(second)}) == stored
    assert list(stored) == sorted(texts)[: len(stored)] and (stored or not texts)
    assert len(stored) <= 5 and sum(len(text.encode()) for text in list(stored.values())[:-1]) < 10


def test_held_out_text_that_is_too_little_is_named() -> None:
    assert describe_shortage(100, 100_000) is None
    assert describe_shortage(3, 405) == (
        "3 held-out document(s) of 405 bytes are too few to measure by: another choice of them would give another "
        "loss. Raise data.held_out or give more text: at least 100 documents and 100,000 bytes"
    )
    assert describe_shortage(99, 10**9) and describe_shortage(10**9, 99_999)


@given(st.dictionaries(st.integers(0, 20), st.text(max_size=3), max_size=12), st.integers(0, 12), st.booleans())
def test_collected_texts_are_those_that_the_rule_chooses(texts: dict[int, str], cut: int, none_below: bool) -> None:
    limit = 0 if none_below else 10
    collected = HeldOutTexts()
    for some in (dict(list(texts.items())[:cut]), dict(list(texts.items())[cut:])):
        below = {number: text for number, text in some.items() if number < limit}
        lowest = dict(sorted((number, text) for number, text in some.items() if number >= limit)[:1])
        collected.add(HeldOutTexts(below, lowest))
    hashes = np.array(list(texts), np.uint64)
    chosen = hashes[choose_held_out(hashes, limit / 2**64)]
    assert collected.chosen() == {number: texts[number] for number in chosen.tolist()}
