"""Attention by two matrix products and the masked softmax of `cram_kernels`."""

import torch
from torch import Tensor

import cram_kernels as ck
from cram.model.backends.backend import AttentionBackend, Packing


class Softmax(AttentionBackend):
    """The formula as it is written, with all weights in memory. Source: arXiv:1706.03762 eq. 1."""

    keeps_weights = True

    def suits(self, device: torch.device, dtype: torch.dtype) -> bool:
        """In bf16 on a CPU, where two batched products take less than half the time of SDPA."""
        return device.type == "cpu" and dtype == torch.bfloat16

    def attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        """Attention within documents: q, k, v (rows, seq_len, heads, head_dim) -> q's shape."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        weights = ck.softmax(scores, mask=packing.mask)
        return (weights @ v).transpose(1, 2)


SOFTMAX = Softmax()
