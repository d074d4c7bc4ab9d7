"""Self-attention inside packed documents: the facts of a packed batch, and the kernels that can compute it.

`documents` gives each position the index of its document within the row. Positions see their own document
only, and count from its start.
"""

import functools
import importlib.util
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck
from cram.errors import CramError
from cram.model.layers import RMSNorm

VARIABLE_LENGTH = ("flash", "varlen")

# [CLS], a token and [SEP]: no document that lies whole within a row is shorter. The rest of a long one can be; so many
# of those that they exceed the capacity of a whole micro-batch would see their neighbours.
_SHORTEST_DOCUMENT = 3


@dataclass(frozen=True)
class Packing:
    """What every layer needs to know of a batch (rows, seq_len), derived once a forward pass.

    `backend` is the attention kernel; `positions` is int64 (rows, seq_len), counted from each document's start; `cos`
    and `sin` are fp32 (rows, seq_len, head_dim / 2), None without rotary positions; `mask` is bool
    (rows, 1, seq_len, seq_len), True where a position sees another, or None where it is not needed; `bounds` is int32
    (capacity + 1), the flat borders of the documents for the variable-length kernels, or None. `causal` hides from
    every position those after it, in the mask where there is one.
    """

    backend: str
    positions: Tensor
    cos: Tensor | None
    sin: Tensor | None
    mask: Tensor | None
    bounds: Tensor | None
    causal: bool = False


def document_starts(documents: Tensor) -> Tensor:
    """bool (rows, seq_len): True at the first position of each document of `documents` int (rows, seq_len)."""
    first = torch.ones_like(documents[:, :1], dtype=torch.bool)
    return torch.cat([first, documents[:, 1:] != documents[:, :-1]], dim=1)


def document_positions(starts: Tensor) -> Tensor:
    """int64 (rows, seq_len): each position counted from its document's start, given `starts` bool."""
    places = torch.arange(starts.shape[1], device=starts.device)
    return places - torch.where(starts, places, 0).cummax(dim=1).values


def document_bounds(starts: Tensor) -> Tensor:
    """Flat borders of the documents, int32, as variable-length kernels take them.

    The length is a function of the shape alone, so that no count is waited for: room for as many documents as
    could lie in a row, the unused borders at the end all being the number of positions.
    """
    rows, seq_len = starts.shape
    # A row begins and ends with a cut document as a rule, and padding: these may be shorter than a whole one.
    capacity = rows * (seq_len // _SHORTEST_DOCUMENT + 3)
    flat = starts.flatten()
    slot = torch.where(flat, flat.cumsum(0) - 1, capacity).clamp(max=capacity)
    bounds = torch.full((capacity + 1,), rows * seq_len, dtype=torch.int32, device=starts.device)
    places = torch.arange(rows * seq_len, dtype=torch.int32, device=starts.device)
    return bounds.scatter_(0, slot, torch.where(flat, places, rows * seq_len))


def rotary_table(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, fp32 (rows, seq_len, head_dim / 2), of positions int64 (rows, seq_len).

    Source: arXiv:2104.09864 eq. 15.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    places = torch.arange(positions.shape[1], dtype=torch.float32, device=positions.device)
    angles = places[:, None] * (1.0 / theta**exponents)
    return F.embedding(positions, angles.cos()), F.embedding(positions, angles.sin())


def _refusal(backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot run, or None."""
    if backend == "flash" and importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    if device.type != "cuda":
        return f"it needs a GPU, and the device is {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"it needs half precision, and this is {dtype}".replace("torch.", "")
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or later"
    return None


@functools.cache
def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel that `model.attention` means for tensors of this device and dtype.

    Raises:
        CramError: if flash or varlen is demanded where it cannot run.
    """
    if name == "auto" and device.type == "cpu" and dtype == torch.bfloat16:
        # Two batched products take less than half the time of the CPU's SDPA, which is slow in bf16.
        return "softmax"
    if name == "auto":
        return next((kernel for kernel in VARIABLE_LENGTH if _refusal(kernel, device, dtype) is None), "sdpa")
    reason = _refusal(name, device, dtype) if name in VARIABLE_LENGTH else None
    if reason:
        raise CramError(f"model.attention={name} cannot run: {reason}; set model.attention=auto")
    return name


def pack(documents: Tensor, head_dim: int, theta: float | None, backend: str, causal: bool = False) -> Packing:
    """Derive the `Packing` of documents int (rows, seq_len); theta is None for a model without rotary positions."""
    starts = document_starts(documents)
    positions = document_positions(starts)
    cos, sin = (None, None) if theta is None else rotary_table(positions, head_dim, theta)
    if backend in VARIABLE_LENGTH:
        return Packing(backend, positions, cos, sin, None, document_bounds(starts), causal)
    # Only on the CPU is it free to look whether there is anything to hide.
    if documents.device.type == "cpu" and not bool(starts[:, 1:].any()) and not (causal and backend == "softmax"):
        return Packing(backend, positions, cos, sin, None, None, causal)
    mask = documents[:, :, None] == documents[:, None, :]
    return Packing(backend, positions, cos, sin, (mask.tril() if causal else mask)[:, None], None, causal)


def _variable_length(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    seq_len, bounds = q.shape[1], packing.bounds
    assert bounds is not None
    flat = (q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    if packing.backend == "flash":
        from flash_attn import flash_attn_varlen_func

        out = flash_attn_varlen_func(*flat, bounds, bounds, seq_len, seq_len, causal=packing.causal)
    else:
        from torch.nn.attention.varlen import varlen_attn

        window = (-1, 0 if packing.causal else -1)
        out = varlen_attn(*flat, bounds, bounds, seq_len, seq_len, window_size=window)
    assert isinstance(out, Tensor)
    return out.view(q.shape)


def _explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return ck.softmax(scores, mask=mask) @ v


def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Attention within documents: q, k, v (rows, seq_len, heads, head_dim) -> q's shape.

    Source: arXiv:1706.03762 eq. 1.
    """
    if packing.bounds is not None:
        return _variable_length(q, k, v, packing)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if packing.backend == "softmax":
        return _explicit(q, k, v, packing.mask).transpose(1, 2)
    triangle = packing.causal and packing.mask is None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=packing.mask, is_causal=triangle).transpose(1, 2)


def pick(hidden: Tensor, slots: Tensor) -> Tensor:
    """(N, width): the positions of hidden (rows, seq_len, width) at slots int64 (N), indices into rows * seq_len.

    A lookup, because its gradient is deterministic and fast where `index_select`'s is not.
    """
    return F.embedding(slots, hidden.flatten(0, 1))


def arrange(slots: Tensor, rows: int, seq_len: int) -> tuple[Tensor, Tensor]:
    """Arrange slots int64 (N), indices into rows * seq_len, as the same number of queries for each row.

    Returns:
        places int64 (rows * most), the queries' indices into rows * seq_len, a row with fewer filled up with
        its first position; answers int64 (N), where among the places each slot is. Waits for the device.
    """
    row = slots // seq_len
    counts = torch.bincount(row, minlength=rows)
    most = max(1, int(counts.max()))
    order = row.argsort(stable=True)
    rank = torch.arange(len(slots), device=slots.device) - (counts.cumsum(0) - counts)[row[order]]
    answers = torch.empty_like(slots)
    answers[order] = row[order] * most + rank
    places = torch.arange(0, rows * seq_len, seq_len, device=slots.device).repeat_interleave(most)
    places[answers] = slots
    return places, answers


def attend_at(q: Tensor, k: Tensor, v: Tensor, packing: Packing, slots: Tensor) -> Tensor:
    """What `attend` gives at slots int64 (N), indices into rows * seq_len: (N, heads * head_dim).

    On a CPU the other queries are left out; elsewhere the arranging would wait for the device. A causal model is
    asked for nearly all of them.
    """
    rows, seq_len, heads, head_dim = q.shape
    if q.device.type != "cpu" or packing.causal:
        return pick(attend(q, k, v, packing).flatten(2), slots)
    places, answers = arrange(slots, rows, seq_len)
    mask = None if packing.mask is None else packing.mask.flatten(0, 2)[places].view(rows, 1, -1, seq_len)
    q = pick(q.flatten(2), places).view(rows, -1, heads, head_dim)
    return pick(attend(q, k, v, replace(packing, mask=mask)).flatten(2), answers)


class Attention(nn.Module):
    """Multi-head self-attention without biases, up to but without its output projection.

    Positions are rotary where the packing has angles. The projection is the block's to apply, because the last block
    needs it at few positions only.

    Args:
        qk_eps: epsilon of the norms of each head's queries and keys (arXiv:2010.04245); None for a model without.
    """

    def __init__(self, width: int, heads: int, qk_eps: float | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_norm = nn.Identity() if qk_eps is None else RMSNorm(width // heads, qk_eps)
        self.k_norm = nn.Identity() if qk_eps is None else RMSNorm(width // heads, qk_eps)

    def forward(self, hidden: Tensor, packing: Packing, slots: Tensor | None = None) -> Tensor:
        """(rows, seq_len, width) -> what the heads gathered, of the same shape; with slots (N): (N, width)."""
        rows, seq_len, width = hidden.shape
        q, k, v = self.qkv(hidden).view(rows, seq_len, 3, self.heads, width // self.heads).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if packing.cos is not None and packing.sin is not None:
            q, k = ck.rope(q, k, packing.cos, packing.sin)
        return attend(q, k, v, packing).flatten(2) if slots is None else attend_at(q, k, v, packing, slots)
