"""The architecture of Cramming, with which recipes are compared.

    x = LayerNorm(embedding[token] + scale * sinusoid[position])
    each block:  x = x + out(attention(LayerNorm(x)));  x = x + down(gelu(a) * b),  a | b = up(LayerNorm(x))
    logits = LayerNorm(x) @ embedding^T

No linear layer has a bias, every LayerNorm has one. gelu is the exact one, and the scale is one learned number. There
is no dropout, and no dense layer in the head. The recipe `crammed_bert` has the published size, epsilon and
initialisation.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.model.backends.backend import Packing
from cram.model.heads import TiedHead
from cram.model.layers import LayerNorm
from cram.model.transformer import Architecture, Transformer


def sinusoid_table(seq_len: int, width: int, theta: float, like: Tensor) -> Tensor:
    """Sines at even places, cosines at odd ones: (seq_len, width) in the dtype and on the device of `like`.

    Source: arXiv:1706.03762 section 3.5.
    """
    exponents = torch.arange(0, width, 2, dtype=like.dtype, device=like.device) / width
    angles = torch.arange(seq_len, dtype=like.dtype, device=like.device)[:, None] / theta**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Crammed(Transformer):
    """The language model of `model.kind: crammed`.

    Source: arXiv:2212.14034 and the `crammed-bert` of its code, changed:

    - A document attends to itself only and counts positions from its own start. The published model reads a row as one
      text; for a row that is one document both are equal.
    - Rows may be of any length.
    - The first half of `up` goes through gelu, not the second, and q, k and v are not interleaved by head. This only
      permutes rows of randomly drawn matrices.
    - The padding token has an ordinary embedding. The published code sets it to zero, and then draws the tied output
      weight over it.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        norm = functools.partial(LayerNorm, bias=True)
        super().__init__(config, vocab_size, Architecture(norm, first_norm=True, rotary=False))
        assert config.width % 2 == 0, "sinusoidal positions come in pairs"
        self.position_scale = nn.Parameter(torch.empty(1))
        self.head = TiedHead(self.embedding)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew as `Transformer` does, and set the scale of the positions to 1 / sqrt(width)."""
        super().initialise(seed)
        self.position_scale.fill_(self.config.width**-0.5)

    def embed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """Embedding plus scaled sinusoid: (rows, seq_len, width), of tokens int64 (rows, seq_len)."""
        table = sinusoid_table(tokens.shape[1], self.config.width, self.config.rope_theta, self.position_scale)
        embedded: Tensor = self.embedding(tokens)
        return embedded + F.embedding(packing.positions, self.position_scale * table)
