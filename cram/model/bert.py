"""BERT, with which recipes are compared: after each sum there is a norm, and everything has a bias.

    x = LayerNorm(embedding[token] + positions[position])
    each block:  x = LayerNorm(x + out(attention(x)));  x = LayerNorm(x + down(gelu(up(x))))
    logits = LayerNorm(gelu(dense(x))) @ embedding^T + bias

There are two variants whose norms come before attention and MLP, and whose sums are not normalised.
"""

import functools

import torch
from torch import Tensor, nn

from cram.config.model import ModelConfig
from cram.model.attention import Attention, pick
from cram.model.backends.backend import Packing
from cram.model.heads import MaskedHead
from cram.model.layers import LayerNorm, PlainMLP, make_dropout
from cram.model.transformer import Architecture, Transformer

BiasedNorm = functools.partial(LayerNorm, bias=True)


class PostNormBlock(nn.Module):
    """One block of BERT: a norm behind each sum.

    Args:
        config: size of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads, bias=True)
        self.attention_norm = BiasedNorm(config.width, config.norm_eps)
        self.mlp = PlainMLP(config.width, config.mlp_width)
        self.mlp_norm = BiasedNorm(config.width, config.norm_eps)
        self.dropout = make_dropout(config.dropout)

    def forward(self, hidden: Tensor, packing: Packing, slots: Tensor | None = None) -> Tensor:
        """(rows, seq_len, width) -> the same, or (N, width) at the slots alone."""
        change = self.attention.out(self.attention(hidden, packing, slots))
        if slots is not None:
            hidden = pick(hidden, slots)
        hidden = self.attention_norm.add(self.dropout(change), hidden)[0]
        normal: Tensor = self.mlp_norm.add(self.dropout(self.mlp(hidden)), hidden)[0]
        return normal


class LearnedPositions(Transformer):
    """A transformer that adds a learned vector for each position to the embedding."""

    def __init__(self, config: ModelConfig, vocab_size: int, architecture: Architecture) -> None:
        super().__init__(config, vocab_size, architecture)
        self.positions = nn.Embedding(config.positions, config.width)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew as `Transformer` does; the bias of the logits is 0."""
        super().initialise(seed)
        if self.head.bias is not None:
            self.head.bias.zero_()

    def embed(self, tokens: Tensor, packing: Packing) -> Tensor:
        """Embedding plus the vector of the position: (rows, seq_len, width), of tokens int64 (rows, seq_len)."""
        embedded: Tensor = self.embedding(tokens) + self.positions(packing.positions)
        return embedded


class Bert(LearnedPositions):
    """The language model of `model.kind: bert`, which computes exactly what `BertForMaskedLM` computes.

    Source: arXiv:1810.04805, changed: no second sentence, so no embedding of token types; a document attends to itself
    only and counts positions from its own start; dropout where a block's change or the embedding is, not inside
    attention; only predicted positions reach the head.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size, Architecture(BiasedNorm, rotary=False, final_norm=False))
        self.head = MaskedHead(self.embedding, config.norm_eps, biases=True, output_bias=True)
        self.embedding_dropout = make_dropout(config.dropout)

    def new_block(self, index: int) -> nn.Module:
        """A block with norms behind the sums."""
        return PostNormBlock(self.config)

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, slots: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Compute the hidden states after the last block; see `Transformer.forward`."""
        packing = self._pack(tokens, documents, causal)
        hidden = self.embedding_dropout(self.embedding_norm(self.embed(tokens, packing)))
        blocks = self._active_blocks()
        for block in blocks[:-1]:
            hidden = block(hidden, packing)
        if blocks:
            hidden = blocks[-1](hidden, packing, slots)
        elif slots is not None:
            hidden = pick(hidden, slots)
        flat: Tensor = hidden.view(-1, self.config.width)
        return flat


class PrenormBert(LearnedPositions):
    """The language model of `model.kind: prenorm_bert`, which 24h BERT trains: norms before attention and MLP.

    Source: arXiv:2104.07705 and its code, changed as `Bert` is. The logits have no bias, as there, where sparse
    prediction leaves it out.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size, Architecture(BiasedNorm, first_norm=True, gate=None, rotary=False))
        self.head = MaskedHead(self.embedding, config.norm_eps, biases=True)


class MinimalBert(LearnedPositions):
    """The language model of `model.kind: minimal_bert`: the smallest change of BERT that bears a high learning rate.

    Source: arXiv:2212.14034, the `crammed-bert-simple` of its code: norms before attention and MLP, and none behind the
    last block. Changed as `Bert` is.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        architecture = Architecture(BiasedNorm, first_norm=True, gate=None, rotary=False, final_norm=False)
        super().__init__(config, vocab_size, architecture)
        self.head = MaskedHead(self.embedding, config.norm_eps, biases=True, output_bias=True)
