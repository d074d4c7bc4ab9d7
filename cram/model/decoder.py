"""The decoder: a pre-norm transformer whose positions see themselves and the earlier positions of their document.

    each block:  x = x + out(attention(RMSNorm(x)));  x = x + down(silu(a) * b),  a | b = up(RMSNorm(x))
    logits = RMSNorm(x) @ embedding^T

Each head divides its queries and keys by their root mean square before rotating them. There are no biases.
"""

import cram_kernels as ck
from cram.config.model import ModelConfig
from cram.model.heads import TiedHead
from cram.model.layers import RMSNorm
from cram.model.transformer import Architecture, Transformer

QWEN3 = Architecture(
    norm=RMSNorm, first_norm=True, embedding_norm=False, gate=ck.swiglu, qk_norm=True, causal=True, rotary=True
)


class Decoder(Transformer):
    """The language model of `model.kind: decoder`, which computes exactly what `Qwen3ForCausalLM` computes.

    Source: arXiv:2505.09388 section 2, changed: there are as many heads of keys and values as of queries, the heads
    together are as wide as the model, the output weight is tied, and a document attends to itself only.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size, QWEN3)
        self.head = TiedHead(self.embedding)
