"""Buckets: flat buffers in which the gradients of pieces are added up over the ranks, and their weights come back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cram.optim.pieces import Piece, Round

# Bytes at which a bucket is full. An exchange of fewer has a time that hardly depends on its size, and with more the
# last exchange, which no backward pass hides, takes longer: torch's DistributedDataParallel has 25 MiB, for all ranks.
FULL = 16 * 2**20
# Pieces begin at multiples of so many elements, because kernels read 16 bytes at a time only where these are aligned.
ALIGNED = 64


@dataclass(frozen=True)
class Slot:
    """The place of a piece in a bucket.

    Attributes:
        piece: which one.
        values: the place, a view of the bucket with the shape of the piece.
        weight: the piece itself, a view of its parameter without gradient.
    """

    piece: Piece
    values: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Bucket:
    """A flat buffer, (ranks * part), whose part of each rank holds the pieces that the rank owns."""

    flat: Tensor
    slots: list[Slot]


def make_buckets(rounds: Sequence[Round], weights: dict[str, Tensor], size: int) -> list[Bucket]:
    """Make buckets for pieces, in the same order; a bucket holds whole rounds and takes further ones until it is full.

    Args:
        rounds: as `share_out` gives them.
        weights: each parameter by its name.
        size: number of ranks.
    """
    buckets: list[Bucket] = []
    together: Round = []
    for number, pieces in enumerate(rounds):
        together += pieces
        first = weights[together[0].weight.name]
        full = size * _part(together, size) * first.element_size() >= FULL
        if full or number == len(rounds) - 1:
            buckets.append(_make_bucket(together, weights, size, first))
            together = []
    return buckets


def _part(pieces: Round, size: int) -> int:
    """Elements of the largest part of a rank."""
    ends = [0] * size
    for piece in pieces:
        ends[piece.owner] += _aligned(piece.elements)
    return max(ends)


def _make_bucket(pieces: Round, weights: dict[str, Tensor], size: int, like: Tensor) -> Bucket:
    part = _part(pieces, size)
    flat = torch.zeros(size * part, dtype=like.dtype, device=like.device)
    ends = [rank * part for rank in range(size)]
    slots = []
    for piece in pieces:
        weight = weights[piece.weight.name].detach()
        assert weight.dtype == flat.dtype, piece.weight.name
        rows = rows_of(weight, piece.begin, piece.end)
        begin = ends[piece.owner]
        slots.append(Slot(piece, flat[begin : begin + piece.elements].view(rows.shape), rows))
        ends[piece.owner] += _aligned(piece.elements)
    return Bucket(flat, slots)


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNED) * ALIGNED


def rows_of(tensor: Tensor, begin: int, end: int) -> Tensor:
    """Some rows of a tensor as a view; a scalar as it is."""
    return tensor[begin:end] if tensor.ndim else tensor
