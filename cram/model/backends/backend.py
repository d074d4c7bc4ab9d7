"""The contract of an attention back-end: the packed batch it is given, and what it must compute."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Facts about a packed batch (rows, seq_len) that every layer needs; derived once in each forward pass.

    Attributes:
        backend: name of the attention back-end.
        positions: int64 (rows, seq_len), counted from the start of each document.
        cos, sin: rotary angles, fp32 (rows, seq_len, head_dim / 2); None without rotary positions.
        mask: bool, broadcastable to (rows, 1, seq_len, seq_len), True where a position sees another; None where every
            position of a row sees every other, or where the back-end needs no mask.
        bounds: int32, flat borders of the documents for variable-length back-ends: the start of each document in
            rows * seq_len, and the end of the last one; None for other back-ends.
        causal: whether a position sees only itself and earlier positions. A mask, if there is one, says so too.
    """

    backend: str
    positions: Tensor
    cos: Tensor | None
    sin: Tensor | None
    mask: Tensor | None
    bounds: Tensor | None
    causal: bool = False


class AttentionBackend:
    """One way to compute attention inside documents.

    A new back-end is a subclass with `attend`, an instance of it, and one line in `ATTENTION` of
    `cram.config.choices`. `torch.compile` traces all methods, so they may not wait for the device.

    Attributes:
        variable_length: whether `attend` reads `Packing.bounds`. Other back-ends read `Packing.mask`.
        causal_without_mask: whether `attend` can hide later positions by itself, where there is no other mask.
        keeps_weights: whether the attention weights of all pairs of positions stay in memory for the gradients.
    """

    variable_length = False
    causal_without_mask = False
    keeps_weights = False

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """The reason why the back-end cannot run with tensors of this device and dtype; None if it can."""
        return None

    def suits(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether `model.attention=auto` takes this back-end, if no earlier one of the table suits."""
        return self.refusal(device, dtype) is None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        """Attention within documents, softmax(q k^T / sqrt(head_dim)) v.

        Args:
            q: (rows, queries, heads, head_dim); other than seq_len queries only for back-ends with a mask.
            k: (rows, seq_len, heads, head_dim).
            v: of k's shape.
            packing: which positions see which.

        Returns:
            (rows, queries, heads, head_dim).
        """
        raise NotImplementedError


class VariableLengthBackend(AttentionBackend):
    """A GPU kernel that takes all documents of a batch one after the other, without padding or a mask."""

    variable_length = True
    causal_without_mask = True

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """The reason why the kernel cannot run: no GPU, an old one, or tensors that are not of half precision."""
        if device.type != "cuda":
            return f"it needs a GPU, and the device is {device.type}"
        if dtype not in (torch.bfloat16, torch.float16):
            return f"it needs half precision, and this is {dtype}".replace("torch.", "")
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "it needs a GPU of compute capability 8.0 or later"
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        """Attention within documents: q, k, v (rows, seq_len, heads, head_dim) -> q's shape."""
        bounds = packing.bounds
        assert bounds is not None
        flat = (q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
        return self.attend_flat(*flat, bounds, q.shape[1], packing.causal).view(q.shape)

    def attend_flat(self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, causal: bool) -> Tensor:
        """The kernel: q, k, v (rows * seq_len, heads, head_dim), documents of at most `longest` positions."""
        raise NotImplementedError
