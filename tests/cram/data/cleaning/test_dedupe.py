import numpy as np
import pytest

from cram.data.cleaning.dedupe import HASHES, find_duplicates
from tests.cram.data.cleaning.duplicates import dropped, drops, find, sign, unlike


def changed(row: np.ndarray, places: slice) -> np.ndarray:
    return np.where(np.isin(np.arange(HASHES), np.arange(HASHES)[places]), row ^ np.uint32(1), row)


def twin(row: np.ndarray, band: int, place: int = 0) -> np.ndarray:
    """Similarity 113/128, and no band of eight hashes in common but this one."""
    differs = (np.arange(HASHES) % 8 == place) & (np.arange(HASHES) // 8 != band)
    return np.where(differs, row ^ np.uint32(1), row)


@pytest.mark.parametrize("band", range(16))
def test_every_band_counts(band: int) -> None:
    row = unlike(1)[0]
    assert dropped(find(None, np.stack([row, twin(row, band)]))) == drops(near=[1])


def test_a_document_is_compared_with_the_first_and_with_the_one_before_it() -> None:
    rows = unlike(5)
    rows[:, :8] = rows[0, :8]
    rows[2] = twin(rows[0], 0)
    rows[4] = twin(rows[3], 0)
    assert dropped(find(None, rows)) == drops(near=[2, 4])
    rows = unlike(2000)
    rows[::2, :8] = rows[0, :8]
    rows[2::4] = [twin(row, 0) for row in rows[::4]]
    assert dropped(find(None, rows)) == drops(near=range(2, 2000, 4))


def test_a_document_is_compared_with_a_held_out_one_that_shares_any_band() -> None:
    rows = unlike(40)
    rows[:, :8] = rows[0, :8]
    rows[5] = twin(rows[30], 0)
    assert dropped(find(None, rows, held_out=(30,))) == drops(near_held_out=[5])
    assert dropped(find(None, rows)) == drops()


def test_clusters_grow_together_band_by_band() -> None:
    """The last joins the one before it in the first band, and so on: a tree as deep as the chain is long."""
    chain = [unlike(1)[0]]
    for band in range(7):
        chain.insert(0, twin(chain[0], band, place=band))
    assert dropped(find(None, np.stack(chain))) == drops(near=range(1, 8))
    assert dropped(find(None, np.stack(chain), held_out=(0,))) == drops(near_held_out=range(1, 8))


def test_the_first_of_equal_documents_is_kept() -> None:
    exact, minhash = sign([["a"], ["b"], ["a"], ["c"], ["b"], ["a"]])
    assert dropped(find(exact)) == dropped(find(exact, minhash)) == drops(exact=[2, 4, 5])
    assert dropped(find(None, minhash)) == drops(near=[2, 4, 5])
    assert dropped(find(None, minhash, threshold=None)) == drops()


def test_half_of_the_hash_is_not_enough() -> None:
    assert dropped(find(np.array([[1, 2], [1, 3], [4, 2], [1, 2]], np.uint64))) == drops(exact=[3])


def test_a_chain_is_one_cluster_even_if_its_ends_differ() -> None:
    first = unlike(1)[0]
    second = changed(first, slice(0, 13))
    third = changed(second, slice(13, 26))
    found = find(None, np.stack([third, unlike(1, 1)[0], second, first]))
    assert dropped(found) == drops(near=[2, 3])
    assert found.pairs == [(2, 0, 115 / 128), (3, 0, 102 / 128)]


def test_documents_that_share_only_a_band_are_not_duplicates() -> None:
    rows = unlike(2)
    rows[1, :102] = rows[0, :102]
    assert dropped(find(None, rows)) == drops()
    rows[1, 102] = rows[0, 102]
    assert dropped(find(None, rows)) == drops(near=[1])


def test_documents_like_a_held_out_one_are_dropped_before_and_after_it() -> None:
    row, other = unlike(2)
    near = changed(row, slice(0, 9))
    rows = np.stack([near, row, other, row, near])
    exact = np.array([[1, 1], [0, 0], [2, 2], [0, 0], [3, 3]], np.uint64)
    assert dropped(find(exact, rows, held_out=(3,))) == drops(near_held_out=[0, 1, 4])
    assert dropped(find(exact, held_out=(3,))) == drops(near_held_out=[1])
    assert find(exact, rows, held_out=(3,)).pairs == [(0, 3, 119 / 128), (1, 3, 1.0), (4, 3, 119 / 128)]


def test_held_out_documents_are_never_dropped() -> None:
    exact, rows = np.zeros((6, 2), np.uint64), np.zeros((6, HASHES), np.uint32)
    for signs in ((exact, None), (None, rows), (exact, rows)):
        assert dropped(find(*signs, held_out=(2, 4))) == drops(near_held_out=[0, 1, 3, 5])
        assert dropped(find(*signs, held_out=tuple(range(6)))) == drops()


def test_a_chain_to_a_held_out_document_is_dropped_whole() -> None:
    first = unlike(1)[0]
    second = changed(first, slice(0, 13))
    third = changed(second, slice(13, 26))
    assert dropped(find(None, np.stack([first, second, third]), held_out=(2,))) == drops(near_held_out=[0, 1])


def test_a_copy_counts_as_exact_even_if_its_twin_is_dropped_for_another_reason() -> None:
    row = unlike(1)[0]
    near = changed(row, slice(0, 9))
    exact = np.array([[1, 1], [1, 1], [2, 2]], np.uint64)
    assert dropped(find(exact, np.stack([near, near, row]), held_out=(2,))) == drops(exact=[1], near_held_out=[0])


def test_documents_that_are_not_candidates_are_ignored() -> None:
    exact, rows = np.zeros((3, 2), np.uint64), np.zeros((3, HASHES), np.uint32)
    assert dropped(find(exact, rows, without=(0,))) == drops(exact=[2])
    assert dropped(find(exact, rows, without=(0, 1))) == drops()
    assert dropped(find(exact, rows, held_out=(0,), without=(0,))) == drops(exact=[2])


@pytest.mark.parametrize("n", [0, 1])
def test_no_document_or_one(n: int) -> None:
    found = find(np.zeros((n, 2), np.uint64), np.zeros((n, HASHES), np.uint32))
    assert (dropped(found), found.pairs, len(found.near)) == (drops(), [], n)
    nothing = np.zeros(0, bool)
    assert find_duplicates([], [], nothing, nothing, 0.8).pairs == []
