"""Attention by torch's `scaled_dot_product_attention`, which runs on every device."""

from torch import Tensor
from torch.nn import functional as F

from cram.model.backends.backend import AttentionBackend, Packing


class Sdpa(AttentionBackend):
    """`scaled_dot_product_attention` with a mask where documents share a row."""

    causal_without_mask = True

    def attend(self, q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        """Attention within documents: q, k, v (rows, seq_len, heads, head_dim) -> q's shape."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        is_causal = packing.causal and packing.mask is None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=packing.mask, is_causal=is_causal).transpose(1, 2)


SDPA = Sdpa()
