"""Attention by the package flash-attn."""

import importlib.util

import torch
from torch import Tensor

from cram.model.backends.backend import VariableLengthBackend


class Flash(VariableLengthBackend):
    """`flash_attn_varlen_func`. Source: arXiv:2307.08691."""

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """The reason why the kernel cannot run: the package is not installed, or the GPU or dtype does not fit."""
        if importlib.util.find_spec("flash_attn") is None:
            return "flash-attn is not installed"
        return super().refusal(device, dtype)

    def attend_flat(self, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, causal: bool) -> Tensor:
        """The kernel: q, k, v (rows * seq_len, heads, head_dim), documents of at most `longest` positions."""
        from flash_attn import flash_attn_varlen_func

        out = flash_attn_varlen_func(q, k, v, bounds, bounds, longest, longest, causal=causal)
        assert isinstance(out, Tensor)
        return out


FLASH = Flash()
