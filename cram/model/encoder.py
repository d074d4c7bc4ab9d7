"""The encoder: a pre-norm transformer whose positions see their whole document.

    x = LayerNorm(embedding[token])
    each block:  x = x + out(attention(LayerNorm(x)));  x = x + down(gelu(a) * b),  a | b = up(LayerNorm(x))
    logits = LayerNorm(gelu(dense(LayerNorm(x)))) @ embedding^T

The first block has no attention norm, because the embedding is normalised already. There are no biases.
"""

from cram.config.model import ModelConfig
from cram.model.heads import MaskedHead
from cram.model.transformer import Architecture, Transformer


class Encoder(Transformer):
    """The language model of `model.kind: encoder`, which computes exactly what `ModernBertForMaskedLM` computes.

    Source: arXiv:2412.13663, changed: all layers attend globally, and to their own document only.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size, Architecture())
        self.head = MaskedHead(self.embedding, config.norm_eps)
