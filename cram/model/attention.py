"""Self-attention inside packed documents: the facts of a packed batch, and the kernels that can compute it.

`documents` gives each position the index of its document within the row. Positions see their own document
only, and count from its start.
"""

import functools
import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck
from cram.errors import CramError

# [CLS], a token and [SEP]: no document that lies whole within a row is shorter.
_SHORTEST_DOCUMENT = 3


@dataclass(frozen=True)
class Packing:
    """What every layer needs to know of a batch (rows, seq_len), derived once a forward pass.

    `backend` is the attention kernel; `cos` and `sin` are fp32 (rows, seq_len, head_dim / 2); `mask` is bool
    (rows, 1, seq_len, seq_len), True within a document, or None where it is not needed; `bounds` is int32
    (capacity + 1), the flat borders of the documents for the variable-length kernels, or None.
    """

    backend: str
    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    bounds: Tensor | None


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
    # Two cut documents and padding may be shorter than a whole one.
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
        return f"it needs bf16 or fp16, and the precision is {dtype}".replace("torch.", "")
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
        return next((kernel for kernel in ("flash", "varlen") if _refusal(kernel, device, dtype) is None), "sdpa")
    reason = _refusal(name, device, dtype) if name in ("flash", "varlen") else None
    if reason:
        raise CramError(f"model.attention={name} cannot run: {reason}; set model.attention=auto")
    return name


def pack(documents: Tensor, head_dim: int, theta: float, backend: str) -> Packing:
    """Derive the `Packing` of documents int (rows, seq_len)."""
    starts = document_starts(documents)
    cos, sin = rotary_table(document_positions(starts), head_dim, theta)
    if backend in ("flash", "varlen"):
        return Packing(backend, cos, sin, None, document_bounds(starts))
    # Only on the CPU is it free to look whether there is anything to hide.
    if documents.device.type == "cpu" and not bool(starts[:, 1:].any()):
        return Packing(backend, cos, sin, None, None)
    return Packing(backend, cos, sin, (documents[:, :, None] == documents[:, None, :])[:, None], None)


def _variable_length(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    seq_len = q.shape[1]
    flat = (q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    if packing.backend == "flash":
        from flash_attn import flash_attn_varlen_func

        out = flash_attn_varlen_func(*flat, packing.bounds, packing.bounds, seq_len, seq_len)
    else:
        from torch.nn.attention.varlen import varlen_attn

        out = varlen_attn(*flat, packing.bounds, packing.bounds, seq_len, seq_len)
    return out.view(q.shape)


def _explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return ck.softmax(scores, mask=mask) @ v


def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Attention within documents: q, k, v (rows, seq_len, heads, head_dim) -> the same shape.

    Source: arXiv:1706.03762 eq. 1.
    """
    if packing.bounds is not None:
        return _variable_length(q, k, v, packing)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if packing.backend == "softmax":
        return _explicit(q, k, v, packing.mask).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=packing.mask).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions and no biases, up to but without its output projection.

    The projection is the block's to apply, because the last block needs it at few positions only.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, packing: Packing) -> Tensor:
        """(rows, seq_len, width) -> what the heads gathered, (rows, seq_len, width), not yet projected."""
        rows, seq_len, width = hidden.shape
        q, k, v = self.qkv(hidden).view(rows, seq_len, 3, self.heads, width // self.heads).unbind(2)
        q, k = ck.rope(q, k, packing.cos, packing.sin)
        return attend(q, k, v, packing).reshape(rows, seq_len, width)
