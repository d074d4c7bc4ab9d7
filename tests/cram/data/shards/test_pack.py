import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cram.data.shards import pack
from cram.data.shards.pack import Packer, PackingKind, best_fit, make_packer, predict_fill

PAD = 0
KINDS: tuple[PackingKind, ...] = ("greedy", "best_fit")
kinds = st.sampled_from(KINDS)
seq_lens = st.one_of(st.integers(2, 40), st.sampled_from([127, 128, 512, 1024]))
# Lengths around and beyond a row, and windows from one document to more than all.
lengths_of_documents = st.lists(st.one_of(st.integers(1, 12), st.integers(1, 130), st.integers(1, 2500)), max_size=40)
windows = st.sampled_from([1, 7, 60, 500, 1 << 20])


@pytest.fixture(scope="module", autouse=True)
def _window() -> None:
    """Restore `WINDOW_TOKENS`, which tests change."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pack, "WINDOW_TOKENS", pack.WINDOW_TOKENS)
    yield
    patch.undo()


def numbered(lengths: list[int]) -> list[np.ndarray]:
    """Documents whose tokens tell their document and place: all different, none is PAD."""
    starts = np.cumsum([1, *lengths])
    return [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)]


def packed(packer: Packer, documents: list[np.ndarray], take_after: set[int]) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for number, document in enumerate(documents):
        packer.add(document)
        if number in take_after:
            parts.append(packer.take())
    parts.append(packer.finish())
    assert packer.pending == 0
    tokens, borders = zip(*parts, strict=True)
    assert {array.dtype for array in (*tokens, *borders)} == {np.dtype(np.int32)}
    return np.concatenate(tokens), np.concatenate(borders)


def pieces(tokens: np.ndarray, documents: np.ndarray, lengths: list[int]) -> list[list[tuple[int, int, int]]]:
    """The runs of one document index in each row: document (-1 for padding), place of its first token, and length.

    Fails where a run is not a stretch of one document, or the indices of a row are not 0, 1, 2 and so on.
    """
    owners = np.repeat(np.arange(len(lengths)), lengths)
    places = np.concatenate([np.arange(length) for length in [0, *lengths]])
    rows = []
    for row, indices in zip(tokens, documents, strict=True):
        borders = np.flatnonzero(np.diff(indices)) + 1
        runs = np.split(row, borders)
        assert [int(part[0]) for part in np.split(indices, borders)] == list(range(len(runs)))
        found = []
        for run in runs:
            if run[0] == PAD:
                assert (run == PAD).all()
                found.append((-1, 0, len(run)))
            else:
                assert (np.diff(run) == 1).all() and len(set(owners[run - 1])) == 1
                found.append((int(owners[run[0] - 1]), int(places[run[0] - 1]), len(run)))
        rows.append(found)
    return rows


@given(kinds, seq_lens, lengths_of_documents, st.sets(st.integers(0, 40)), windows)
def test_every_token_is_packed_once_in_order_with_its_document(
    kind: PackingKind, seq_len: int, lengths: list[int], take_after: set[int], window: int
) -> None:
    pack.WINDOW_TOKENS = window
    tokens, documents = packed(make_packer(kind, seq_len, PAD), numbered(lengths), take_after)
    assert tokens.shape == documents.shape == (len(tokens), seq_len)
    flat = tokens.ravel()
    assert sorted(flat[flat != PAD].tolist()) == list(range(1, sum(lengths) + 1))
    rows = pieces(tokens, documents, lengths)
    for owner in range(len(lengths)):  # a document's parts follow one another in the order of the rows
        places = [place for row in rows for document, place, _ in row if document == owner]
        assert places == sorted(places)
    for row in rows:  # padding ends a row, and there is no row of nothing else
        assert all(document >= 0 for document, _, _ in row[:-1]) and row[0][0] >= 0
        assert [document for document, _, _ in row if document >= 0] == sorted(
            document for document, _, _ in row if document >= 0
        )


@given(seq_lens, lengths_of_documents, st.sets(st.integers(0, 40)))
def test_greedy_is_one_stream_cut_at_the_ends_of_rows(seq_len: int, lengths: list[int], take_after: set[int]) -> None:
    packer = make_packer("greedy", seq_len, PAD)
    tokens, documents = packed(packer, numbered(lengths), take_after)
    total = sum(lengths)
    assert tokens.ravel().tolist() == [*range(1, total + 1), *[PAD] * (-total % seq_len)]
    parts = Counter(document for row in pieces(tokens, documents, lengths) for document, _, _ in row)
    assert packer.cut == sum(parts[owner] > 1 for owner, length in enumerate(lengths) if length <= seq_len)


@given(seq_lens, lengths_of_documents, st.sets(st.integers(0, 40)), windows)
def test_best_fit_cuts_only_documents_longer_than_a_row(
    seq_len: int, lengths: list[int], take_after: set[int], window: int
) -> None:
    pack.WINDOW_TOKENS = window
    packer = make_packer("best_fit", seq_len, PAD)
    rows = pieces(*packed(packer, numbered(lengths), take_after), lengths)
    assert packer.cut == 0
    found = sorted(piece for row in rows for piece in row if piece[0] >= 0)
    assert found == [
        (owner, place, min(seq_len, length - place))
        for owner, length in enumerate(lengths)
        for place in range(0, length, seq_len)
    ]


def plain_best_fit(lengths: list[int], seq_len: int) -> list[int]:
    """The free space of each row by the definition, with a search of all rows for each document; sorted."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in free if space >= length]
        if fitting:
            free.remove(min(fitting))
        free.append((min(fitting) if fitting else seq_len) - length)
    return sorted(free)


@given(st.integers(2, 300), st.lists(st.integers(1, 300), max_size=150))
def test_best_fit_is_best_fit_decreasing(seq_len: int, lengths: list[int]) -> None:
    lengths = [min(length, seq_len) for length in lengths]
    homes = best_fit(np.array(lengths, np.int64), seq_len)
    used = Counter()
    for home, length in zip(homes, lengths, strict=True):
        used[home] += length
    assert sorted(used) == list(range(len(used)))
    assert sorted(seq_len - space for space in used.values()) == plain_best_fit(lengths, seq_len)


def test_documents_of_one_length_are_packed_in_their_order() -> None:
    lengths = np.random.default_rng(0).permutation(np.repeat([5, 7], 1500))
    homes = np.array(best_fit(lengths, 16))
    sevens, fives = homes[lengths == 7], homes[lengths == 5]
    assert sevens.tolist() == [number // 2 for number in range(len(sevens))]
    assert fives.tolist() == [sevens[-1] + 1 + number // 3 for number in range(len(fives))]


@given(kinds, seq_lens, lengths_of_documents, st.data(), windows)
def test_rows_do_not_depend_on_when_they_are_taken_nor_on_a_change_of_packer(
    kind: PackingKind, seq_len: int, lengths: list[int], data: st.DataObject, window: int
) -> None:
    pack.WINDOW_TOKENS = window
    documents = numbered(lengths)
    straight = make_packer(kind, seq_len, PAD)
    expected = packed(straight, documents, set())
    packer = make_packer(kind, seq_len, PAD)
    parts = []
    for document in documents:
        packer.add(document)
        if data.draw(st.booleans()):
            parts.append(packer.take())
        if data.draw(st.booleans()):
            state = packer.state()
            assert len(state["tokens"]) == state["lengths"].sum() == packer.pending
            packer = make_packer(kind, seq_len, PAD)
            packer.add([5])  # what was in it before is gone
            packer.take()
            packer.load({name: array.copy() for name, array in state.items()})
    parts.append(packer.finish())
    for here, there in zip(map(np.concatenate, zip(*parts, strict=True)), expected, strict=True):
        assert (here == there).all() and here.shape == there.shape
    assert packer.cut == straight.cut


@given(kinds, seq_lens, lengths_of_documents, lengths_of_documents)
def test_after_finish_a_packer_continues_like_a_new_one(
    kind: PackingKind, seq_len: int, first: list[int], second: list[int]
) -> None:
    used, new = make_packer(kind, seq_len, PAD), make_packer(kind, seq_len, PAD)
    packed(used, numbered(first), set())
    for here, there in zip(packed(used, numbered(second), set()), packed(new, numbered(second), set()), strict=True):
        assert np.array_equal(here, there)


@given(kinds, seq_lens, lengths_of_documents, windows)
def test_the_predicted_fill_is_that_of_the_packer(
    kind: PackingKind, seq_len: int, lengths: list[int], window: int
) -> None:
    pack.WINDOW_TOKENS = window
    packer = make_packer(kind, seq_len, PAD)
    tokens, _ = packed(packer, numbered(lengths), set())
    told = predict_fill(lengths, seq_len, kind)
    assert (told.rows, told.cut) == (len(tokens), packer.cut)
    assert told.share == (pytest.approx((tokens != PAD).mean()) if len(tokens) else 1.0)


@given(seq_lens, lengths_of_documents)
def test_no_two_rows_of_a_window_would_fit_in_one(seq_len: int, lengths: list[int]) -> None:
    pack.WINDOW_TOKENS = 1 << 20
    tokens, _ = packed(make_packer("best_fit", seq_len, PAD), numbered(lengths), set())
    used = sorted((tokens != PAD).sum(1).tolist())
    assume(len(used) > 1)
    assert used[0] + used[1] > seq_len


@pytest.mark.parametrize(
    ("kind", "rows", "borders"),
    [
        ("greedy", [[1, 2, 3, 4], [5, 6, 7, 8], [9, PAD, PAD, PAD]], [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]),
        ("best_fit", [[3, 4, 5, 6], [1, 2, 7, 8], [9, PAD, PAD, PAD]], [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1]]),
    ],
)
def test_a_long_document_starts_again_at_zero_in_each_row(
    kind: PackingKind, rows: list[list[int]], borders: list[list[int]]
) -> None:
    documents = [np.array(ids) for ids in ([1, 2], [3, 4, 5, 6, 7, 8], [9])]
    tokens, found = packed(make_packer(kind, 4, PAD), documents, set())
    assert (tokens.tolist(), found.tolist()) == (rows, borders)


@pytest.mark.parametrize("kind", KINDS)
def test_without_documents_there_are_no_rows_and_empty_documents_change_nothing(kind: PackingKind) -> None:
    packer = make_packer(kind, 4, PAD)
    packer.add([])
    assert packer.take()[0].shape == packer.finish()[0].shape == packer.finish()[1].shape == (0, 4)
    packer.load(packer.state())
    assert packer.pending == packer.cut == 0
    assert predict_fill([], 4, kind) == pack.Fill(0, 1.0, 0)


@given(kinds, seq_lens, lengths_of_documents, st.integers(1, 5))
def test_many_documents_at_once_are_packed_as_one_by_one(
    kind: PackingKind, seq_len: int, lengths: list[int], at_once: int
) -> None:
    documents = numbered(lengths)
    together = make_packer(kind, seq_len, PAD)
    for first in range(0, len(documents), at_once):
        some = [np.empty(0, np.int64), *documents[first : first + at_once]]  # an empty document changes nothing
        together.extend(np.concatenate(some).astype(np.uint16), np.array(list(map(len, some)), np.int64))
    one_by_one = packed(make_packer(kind, seq_len, PAD), documents, set())
    apart = make_packer(kind, seq_len, PAD)
    for document in documents:
        apart.add(document)
    assert together.cut == apart.cut and together.pending == apart.pending
    assert all(np.array_equal(mine, others) for mine, others in zip(together.finish(), one_by_one, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_pending_tokens_are_few_and_copied(kind: PackingKind) -> None:
    pack.WINDOW_TOKENS = 1000
    packer = make_packer(kind, 16, PAD)
    ids = np.arange(1, 100_000, dtype=np.int32)
    for length in itertools.islice(itertools.cycle([5, 9_999, 30]), 300):
        packer.add(ids[:length])
        packer.take()
        assert packer.pending < 1000 + 16
        kept = [
            array if array.base is None else array.base for array in [*packer._tokens, *getattr(packer, "_window", [])]
        ]
        assert all(array.size < 1000 + 16 for array in kept)  # a view would keep a whole book
    packer.add(ids[:5])
    before = packer.state()["tokens"].tolist()
    ids[:] = 7
    assert packer.state()["tokens"].tolist() == before
