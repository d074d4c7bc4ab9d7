"""Attention by torch's own variable-length kernel."""

from torch import Tensor

from cram.model.backends.backend import VariableLengthBackend


class Varlen(VariableLengthBackend):
    """`torch.nn.attention.varlen.varlen_attn`."""

    def attend_flat(self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, causal: bool) -> Tensor:
        """The kernel: q, k, v (rows * seq_len, heads, head_dim), documents of at most `longest` positions."""
        from torch.nn.attention.varlen import varlen_attn

        window = (-1, 0 if causal else -1)
        out = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=window)
        assert isinstance(out, Tensor)
        return out


VARLEN = Varlen()
