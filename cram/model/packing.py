"""From the document of each position to the facts that every layer needs: positions, angles, mask, borders.

`documents` gives each position the index of its document within the row. A document lies in one piece. Positions see
their own document only, and count from its start.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cram.model.backends.backend import Packing
from cram.model.backends.choose import BACKENDS

# [CLS], a token and [SEP]: no document that lies wholly in a row is shorter. The rest of a document that was cut at the
# end of a row can be shorter. If so many such rests came together that they exceeded the capacity of a micro-batch,
# they would see their neighbours.
_SHORTEST_DOCUMENT = 3


def document_starts(documents: Tensor) -> Tensor:
    """Mark the first position of each document of `documents` int (rows, seq_len): bool (rows, seq_len)."""
    first = torch.ones_like(documents[:, :1], dtype=torch.bool)
    return torch.cat([first, documents[:, 1:] != documents[:, :-1]], dim=1)


def document_positions(starts: Tensor) -> Tensor:
    """Count each position from its document's start, given `starts` bool (rows, seq_len): int64 (rows, seq_len)."""
    places = torch.arange(starts.shape[1], device=starts.device)
    return places - torch.where(starts, places, 0).cummax(dim=1).values


def document_bounds(starts: Tensor) -> Tensor:
    """Flat borders of the documents, int32, as variable-length back-ends take them.

    The number of borders depends on the shape alone, so that nothing waits for a count from the device: it is the
    largest number of documents that fit into the rows. The unused borders at the end all equal the number of positions.

    Args:
        starts: bool (rows, seq_len), True at the first position of each document.
    """
    rows, seq_len = starts.shape
    # A row often begins and ends with a cut document, and with padding; these may be shorter than a whole document.
    capacity = rows * (seq_len // _SHORTEST_DOCUMENT + 3)
    flat = starts.flatten()
    slot = torch.where(flat, flat.cumsum(0) - 1, capacity).clamp(max=capacity)
    bounds = torch.full((capacity + 1,), rows * seq_len, dtype=torch.int32, device=starts.device)
    places = torch.arange(rows * seq_len, dtype=torch.int32, device=starts.device)
    return bounds.scatter_(0, slot, torch.where(flat, places, rows * seq_len))


def rotary_table(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Look up cosines and sines of the rotary angles, fp32 (rows, seq_len, head_dim / 2).

    Args:
        positions: int64 (rows, seq_len).
        head_dim: width of a head.
        theta: base of the angles.

    Source: arXiv:2104.09864 eq. 15.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    places = torch.arange(positions.shape[1], dtype=torch.float32, device=positions.device)
    angles = places[:, None] * (1.0 / theta**exponents)
    return F.embedding(positions, angles.cos()), F.embedding(positions, angles.sin())


def pack(documents: Tensor, head_dim: int, theta: float | None, backend: str, causal: bool = False) -> Packing:
    """Derive the facts of a batch whose rows hold several documents.

    Args:
        documents: int (rows, seq_len), the document of each position within its row.
        head_dim: width of a head.
        theta: base of the rotary angles; None for a model without rotary positions.
        backend: name of the attention back-end.
        causal: whether positions see no later ones.
    """
    starts = document_starts(documents)
    positions = document_positions(starts)
    cos, sin = (None, None) if theta is None else rotary_table(positions, head_dim, theta)
    if BACKENDS[backend].variable_length:
        return Packing(backend, positions, cos, sin, None, document_bounds(starts), causal)
    unmasked = not causal or BACKENDS[backend].causal_without_mask
    # A look at the values is free on a CPU only; a GPU would have to be waited for.
    if documents.device.type == "cpu" and not bool(starts[:, 1:].any()) and unmasked:
        return Packing(backend, positions, cos, sin, None, None, causal)
    mask = documents[:, :, None] == documents[:, None, :]
    return Packing(backend, positions, cos, sin, (mask.tril() if causal else mask)[:, None], None, causal)


def pack_whole_rows(tokens: Tensor, head_dim: int, theta: float | None, backend: str, causal: bool = False) -> Packing:
    """Derive the facts of a batch with one document in each row of tokens int (rows, seq_len); arguments as `pack`."""
    rows, seq_len = tokens.shape
    places = torch.arange(seq_len, device=tokens.device)
    positions = places.expand(rows, seq_len)
    cos, sin = (None, None) if theta is None else rotary_table(positions, head_dim, theta)
    mask = bounds = None
    if BACKENDS[backend].variable_length:
        bounds = torch.arange(0, rows * seq_len + 1, seq_len, dtype=torch.int32, device=tokens.device)
    elif causal and not BACKENDS[backend].causal_without_mask:
        mask = (places[:, None] >= places)[None, None]
    return Packing(backend, positions, cos, sin, mask, bounds, causal)
