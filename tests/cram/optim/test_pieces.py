"""Every element of a model has one owner, and the ranks have nearly the same amount of each kind of work."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from cram.optim.pieces import CUT, Piece, Weight, share_out

SIZES = st.integers(1, 9)


def matrices(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and splits of a weight with one to three matrices of a few sizes."""
    rows = draw(st.lists(st.sampled_from([2, 3, 64]), min_size=1, max_size=3))
    return (sum(rows), draw(st.sampled_from([2, 5, 64]))), tuple(rows)


@st.composite
def weights(draw: st.DrawFn) -> list[Weight]:
    """A few parameters: matrices, large and small ones, scalars."""
    found = []
    for number in range(draw(st.integers(0, 10))):
        kind = draw(st.sampled_from(["matrix", "large", "small", "scalar"]))
        shape, splits = (), ()
        if kind == "matrix":
            shape, splits = matrices(draw)
        elif kind == "large":
            shape = (draw(st.integers(1, 3000)), draw(st.integers(3, 50)))
        elif kind == "small":
            shape = (draw(st.integers(1, 600)),)
        found.append(Weight(f"weight{number}", shape, splits))
    return found


def pieces_of(weights: Sequence[Weight], size: int) -> list[Piece]:
    return [piece for pieces in share_out(weights, size) for piece in pieces]


def spread(load: Counter[int], size: int) -> int:
    """Difference between the ranks with the most and the least."""
    return max(load[rank] for rank in range(size)) - min(load[rank] for rank in range(size))


@given(weights(), SIZES)
@settings(max_examples=50)
def test_every_row_is_in_one_piece_and_no_matrix_is_cut(weights: list[Weight], size: int) -> None:
    pieces = pieces_of(weights, size)
    assert all(0 <= piece.owner < size for piece in pieces)
    assert len({piece.name for piece in pieces}) == len(pieces)
    for weight in weights:
        ranges = sorted((piece.begin, piece.end) for piece in pieces if piece.weight == weight)
        assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == weight.rows
        if weight.matrices:
            assert [end - begin for begin, end in ranges] == list(weight.matrices)


@given(weights(), SIZES)
@settings(max_examples=50)
def test_each_rank_has_the_same_number_of_matrices_of_each_shape_within_one(weights: list[Weight], size: int) -> None:
    counts: dict[tuple[int, int], Counter[int]] = {}
    work: Counter[int] = Counter()
    largest = 0
    for piece in pieces_of(weights, size):
        if piece.weight.matrices:
            shape = (piece.end - piece.begin, piece.weight.columns)
            counts.setdefault(shape, Counter())[piece.owner] += 1
            work[piece.owner] += piece.elements * min(shape)
            largest = max(largest, piece.elements * min(shape))
    assert all(spread(count, size) <= 1 for count in counts.values())
    assert spread(work, size) <= largest


@given(weights(), SIZES)
@settings(max_examples=50)
def test_the_others_are_balanced(weights: list[Weight], size: int) -> None:
    others = [weight for weight in weights if not weight.matrices]
    load: Counter[int] = Counter()
    indivisible = 0
    for piece in pieces_of(others, size):
        load[piece.owner] += piece.elements
        is_whole = piece.end - piece.begin == piece.weight.rows
        indivisible = max(indivisible, piece.elements if is_whole else piece.weight.columns)
        assert size == 1 or not is_whole or piece.elements < max(CUT, size * piece.weight.columns)
        assert is_whole or abs((piece.end - piece.begin) - piece.weight.rows / size) < 1
    assert spread(load, size) <= indivisible


@given(weights(), SIZES)
@settings(max_examples=50)
def test_rounds_need_no_padding_except_the_last_one(weights: list[Weight], size: int) -> None:
    for pieces in share_out(weights, size)[:-1]:
        assert sorted(piece.owner for piece in pieces) == list(range(size))
        longest = max(piece.elements for piece in pieces)
        assert all(longest - piece.elements <= piece.weight.columns for piece in pieces)


def test_rounds_follow_the_backward_pass() -> None:
    blocks = [Weight(f"blocks.{number}", (64, 64), (32, 32)) for number in range(4)]
    rounds = share_out([Weight("embedding", (1000, 64)), *blocks], 2)
    assert [pieces[0].weight.name for pieces in rounds] == ["blocks.3", "blocks.2", "blocks.1", "blocks.0", "embedding"]


def test_matrices_left_over_are_shared_by_their_work() -> None:
    large, small = [Weight(f"large{number}", (64, 64), (64,)) for number in range(3)], Weight("small", (8, 8), (8,))
    owners = {piece.weight.name: piece.owner for piece in pieces_of([*large, small], 2)}
    busy = Counter(owners[weight.name] for weight in large)
    assert busy[owners["small"]] == 1


def test_the_longer_parts_of_parameters_alternate() -> None:
    odd = [Weight(name, (1001, 5)) for name in "abcd"]
    load = Counter({0: 0, 1: 0})
    for piece in pieces_of(odd, 2):
        load[piece.owner] += piece.elements
    assert load[0] == load[1]
