"""Self-attention inside packed documents, at all positions or at a few."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck
from cram.model.backends.backend import Packing
from cram.model.backends.choose import BACKENDS
from cram.model.layers import FusedLinear, RMSNorm


def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Attention within documents by the packing's back-end: q, k, v (rows, seq_len, heads, head_dim) -> q's shape.

    Source: arXiv:1706.03762 eq. 1.
    """
    return BACKENDS[packing.backend].attend(q, k, v, packing)


def pick(hidden: Tensor, slots: Tensor) -> Tensor:
    """Take the positions of hidden (rows, seq_len, width) at slots int64 (N), indices into rows * seq_len: (N, width).

    An embedding lookup, because its gradient is deterministic and fast; that of `index_select` is neither.
    """
    return F.embedding(slots, hidden.flatten(0, 1))


def arrange(slots: Tensor, rows: int, seq_len: int) -> tuple[Tensor, Tensor]:
    """Arrange slots int64 (N), indices into rows * seq_len, as the same number of queries in each row.

    Waits for the device.

    Returns:
        places: int64 (rows * queries), indices into rows * seq_len. A row with fewer slots is filled up with its first
            position.
        answers: int64 (N), the index among the places where each slot is.
    """
    row = slots // seq_len
    counts = torch.bincount(row, minlength=rows)
    queries = max(1, int(counts.max()))
    order = row.argsort(stable=True)
    rank = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[row[order]]
    answers = torch.empty_like(slots)
    answers[order] = row[order] * queries + rank
    places = torch.arange(0, rows * seq_len, seq_len, device=slots.device).repeat_interleave(queries)
    places[answers] = slots
    return places, answers


def attend_at(q: Tensor, k: Tensor, v: Tensor, packing: Packing, slots: Tensor) -> Tensor:
    """Attention for the queries at slots int64 (N), indices into rows * seq_len: (N, heads * head_dim).

    On a CPU the other queries are not computed. On other devices all are, because `arrange` would wait for the device.
    A causal model computes all too, because nearly all are asked for.
    """
    rows, seq_len, heads, head_dim = q.shape
    if q.device.type != "cpu" or packing.causal:
        return pick(attend(q, k, v, packing).flatten(2), slots)
    places, answers = arrange(slots, rows, seq_len)
    mask = None if packing.mask is None else packing.mask.flatten(0, 2)[places].view(rows, 1, -1, seq_len)
    q = pick(q.flatten(2), places).view(rows, -1, heads, head_dim)
    return pick(attend(q, k, v, replace(packing, mask=mask)).flatten(2), answers)


class Attention(nn.Module):
    """Multi-head self-attention without the output projection.

    The block applies the output projection `out`, because the last block needs it at few positions only. Positions are
    rotary where the packing has angles.

    Args:
        width: width of the hidden states.
        heads: number of heads, which divide the width.
        qk_eps: epsilon of the norms of each head's queries and keys (arXiv:2010.04245); None for no such norms.
        bias: whether the projections have biases.
    """

    def __init__(self, width: int, heads: int, qk_eps: float | None = None, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = FusedLinear(width, (width, width, width), bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.q_norm = nn.Identity() if qk_eps is None else RMSNorm(width // heads, qk_eps)
        self.k_norm = nn.Identity() if qk_eps is None else RMSNorm(width // heads, qk_eps)

    def forward(self, hidden: Tensor, packing: Packing, slots: Tensor | None = None) -> Tensor:
        """The heads' values, side by side.

        Args:
            hidden: normalised hidden states (rows, seq_len, width).
            packing: which positions see which.
            slots: int64 (N), indices into rows * seq_len: the only positions to compute; None for all.

        Returns:
            (rows, seq_len, width), or (N, width) with slots.
        """
        rows, seq_len, width = hidden.shape
        q, k, v = self.qkv(hidden).view(rows, seq_len, 3, self.heads, width // self.heads).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if packing.cos is not None and packing.sin is not None:
            q, k = ck.rope(q, k, packing.cos, packing.sin)
        return attend(q, k, v, packing).flatten(2) if slots is None else attend_at(q, k, v, packing, slots)
