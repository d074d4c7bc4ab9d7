"""ELECTRA: a small generator fills hidden tokens, and the discriminator tells which tokens are not the original ones.

    generator:      logits = (norm(gelu(dense(x))) @ up^T) @ embedding^T,   x = blocks(norm(embedding[token] @ down^T))
    discriminator:  logit  = out(norm(gelu(dense(y)))),                     y = blocks(norm(embedding[token]))

Both are encoders as `cram.model.encoder` has them and share the embedding, which has the discriminator's width.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.model.backends.backend import Packing
from cram.model.heads import TiedHead
from cram.model.layers import LayerNorm
from cram.model.transformer import Architecture, Transformer


def generator_config(config: ModelConfig) -> ModelConfig:
    """Give the size of the generator: all blocks, and `model.generator_share` of the widths and heads.

    The width is rounded to an even number, and the heads to a number that divides it into heads of even width.
    """
    width = max(2, 2 * round(config.width * config.generator_share / 2))
    most = max(1, round(config.heads * config.generator_share))
    heads = max(heads for heads in range(1, most + 1) if width % (2 * heads) == 0)
    return replace(config, width=width, heads=heads, mlp_width=max(1, round(config.mlp_width * config.generator_share)))


class GeneratorHead(TiedHead):
    """Dense layer, GELU and LayerNorm, then up to the width of the embedding, and the product with it; no biases.

    Args:
        embedding: of the discriminator.
        width: of the generator.
        eps: of the norm.
    """

    def __init__(self, embedding: nn.Embedding, width: int, eps: float) -> None:
        super().__init__(embedding)
        self.dense = nn.Linear(width, width, bias=False)
        self.norm = LayerNorm(width, eps)
        self.up = nn.Linear(width, embedding.embedding_dim, bias=False)

    def transform(self, hidden: Tensor) -> Tensor:
        """(..., generator width) -> (..., width of the embedding)."""
        raised: Tensor = self.up(self.norm(F.gelu(self.dense(hidden))))
        return raised


class DiscriminatorHead(nn.Module):
    """Dense layer, GELU and LayerNorm, then one logit: whether the token is not the original one.

    Args:
        width: of the discriminator.
        eps: of the norm.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width, bias=False)
        self.norm = LayerNorm(width, eps)
        self.out = nn.Linear(width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (...)."""
        logits: Tensor = self.out(self.norm(F.gelu(self.dense(hidden)))).squeeze(-1)
        return logits


class Generator(Transformer):
    """The generator, whose input is the shared embedding, brought down to its width.

    Args:
        config: the keys `model.*` in its size.
        shared: the embedding of the discriminator.
    """

    def __init__(self, config: ModelConfig, shared: nn.Embedding) -> None:
        super().__init__(config, shared.num_embeddings, Architecture())
        # Not a module of its own, so that torch registers, saves and moves the shared embedding once.
        del self.embedding
        self.__dict__["embedding"] = shared
        self.down = nn.Linear(shared.embedding_dim, config.width, bias=False)

    def embed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """Shared embedding, brought down: (rows, seq_len, width)."""
        embedded: Tensor = self.down(self.embedding(tokens))
        return embedded


class Electra(Transformer):
    """The language model of `model.kind: electra`. As a language model it is its generator.

    Source: arXiv:2003.10555, changed: ModernBERT's blocks; the generator's head ends with a layer up to the width of
    the embedding instead of beginning with it, so that a stock class computes it; the discriminator's head has a norm.

    Attributes:
        head: of the generator.
        blocks: of the discriminator.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size, Architecture())
        size = generator_config(config)
        self.generator = Generator(size, self.embedding)
        self.head = GeneratorHead(self.embedding, size.width, config.norm_eps)
        self.discriminator_head = DiscriminatorHead(config.width, config.norm_eps)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew as `Transformer` does; the bias of the discriminator is 0."""
        super().initialise(seed)
        self.discriminator_head.out.bias.zero_()

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, slots: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Compute the hidden states of the generator; see `Transformer.forward`."""
        hidden: Tensor = self.generator(tokens, documents, slots, causal)
        return hidden

    def encode(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Compute the hidden states of the discriminator: (rows * seq_len, width), of tokens int64 (rows, seq_len)."""
        return super().forward(tokens, documents)

    def discriminate(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Compute the logit of each token not being the original one: (rows * seq_len)."""
        logits: Tensor = self.discriminator_head(self.encode(tokens, documents))
        return logits

    def further_layers(self) -> list[nn.Module]:
        """The layer into the generator, and the head of the discriminator."""
        return [self.generator.down, self.discriminator_head]

    def bodies(self) -> list[Transformer]:
        """Discriminator and generator."""
        return [self, self.generator]
