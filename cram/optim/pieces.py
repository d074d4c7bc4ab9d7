"""Pieces: row ranges of the weights, each of which one rank updates."""

import math
from collections.abc import Sequence
from typing import NamedTuple

# A parameter with fewer elements stays whole: cutting saves less memory than another small tensor costs in time.
CUT = 4096


class Weight(NamedTuple):
    """A parameter that is to be shared out.

    Attributes:
        name: in the model.
        shape: of the parameter.
        matrices: rows of each matrix in it, which may not be cut; () where the parameter may be cut between any rows.
    """

    name: str
    shape: tuple[int, ...]
    matrices: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Length of the first dimension; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return math.prod(self.shape[1:])


class Piece(NamedTuple):
    """Rows `begin` to `end` of a parameter, which the rank `owner` updates."""

    weight: Weight
    begin: int
    end: int
    owner: int

    @property
    def name(self) -> str:
        """Unique among all pieces."""
        return f"{self.weight.name}[{self.begin}:{self.end}]"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return (self.end - self.begin) * self.weight.columns


# Pieces of all ranks whose gradients are exchanged together.
Round = list[Piece]


def share_out(weights: Sequence[Weight], size: int) -> list[Round]:
    """Cut parameters into pieces and give each piece a rank, as a pure function of the arguments.

    Matrices that may not be cut: of each shape every rank gets the same number, within one. Matrices that are left over
    go to the ranks with the least work so far. Other parameters are cut into nearly equal parts for all ranks, and
    small ones go whole to the rank with the fewest elements.

    Args:
        weights: parameters in the order of the model. A backward pass makes their gradients in about the reversed
            order.
        size: number of ranks.

    Returns:
        Rounds in the order in which the gradients of all their pieces are there. In a round of matrices each rank has
        one, of equal shape, and in a round of a parameter that is cut each rank has one part: a flat buffer with equal
        parts for the ranks holds them without padding. What cannot be shared out equally is in a round of its own.
    """
    arrival = {weight.name: place for place, weight in enumerate(reversed(weights))}
    elements = [0] * size
    rounds: list[Round] = []
    rest: Round = []

    def ranks_with_least(load: Sequence[float], count: int) -> list[int]:
        return sorted(range(size), key=lambda rank: (load[rank], elements[rank], rank))[:count]

    def give(pieces: Round, to: list[Round] | None) -> None:
        for piece in pieces:
            elements[piece.owner] += piece.elements
        if to is None:
            rest.extend(pieces)
        else:
            to.append(pieces)

    full, left = _share_matrices(weights, size)
    for pieces in full:
        give(pieces, rounds)
    work = [0.0] * size
    for matrices in left:
        for matrix, rank in zip(matrices, ranks_with_least(work, len(matrices)), strict=True):
            work[rank] += _work(matrix)
            give([matrix._replace(owner=rank)], None)
    others = [weight for weight in weights if not weight.matrices]
    for weight in others:
        if _is_cut(weight, size):
            longer = ranks_with_least(elements, weight.rows % size)
            give(_cut(weight, [weight.rows // size + (rank in longer) for rank in range(size)]), rounds)
    whole = [weight for weight in others if not _is_cut(weight, size)]
    for weight in sorted(whole, key=lambda weight: -weight.rows * weight.columns):
        give([Piece(weight, 0, weight.rows, ranks_with_least(elements, 1)[0])], None)
    rest.sort(key=lambda piece: arrival[piece.weight.name])
    rounds.sort(key=lambda pieces: max(arrival[piece.weight.name] for piece in pieces))
    return [*rounds, rest] if rest else rounds


def _share_matrices(weights: Sequence[Weight], size: int) -> tuple[list[Round], list[Round]]:
    """Deal out the matrices of each shape; also the fewer than `size` left over of each shape, the most work first."""
    shapes: dict[tuple[int, int], Round] = {}
    for weight in reversed(weights):
        begin = 0
        for rows in weight.matrices:
            shapes.setdefault((rows, weight.columns), []).append(Piece(weight, begin, begin + rows, 0))
            begin += rows
    full, left = [], []
    for matrices in sorted(shapes.values(), key=lambda matrices: -_work(matrices[0])):
        dealt = len(matrices) - len(matrices) % size
        for begin in range(0, dealt, size):
            dealt_together = matrices[begin : begin + size]
            full.append([matrix._replace(owner=rank) for rank, matrix in enumerate(dealt_together)])
        if matrices[dealt:]:
            left.append(matrices[dealt:])
    return full, left


def _work(matrix: Piece) -> float:
    """Multiplications of a product of a matrix with its transpose, on the shorter side: Muon's work on it."""
    return matrix.elements * min(matrix.end - matrix.begin, matrix.weight.columns)


def _is_cut(weight: Weight, size: int) -> bool:
    return weight.rows >= size and weight.rows * weight.columns >= CUT


def _cut(weight: Weight, rows: Sequence[int]) -> Round:
    """Pieces with so many rows for each rank, one below the other."""
    pieces, begin = [], 0
    for rank, count in enumerate(rows):
        pieces.append(Piece(weight, begin, begin + count, rank))
        begin += count
    return pieces
