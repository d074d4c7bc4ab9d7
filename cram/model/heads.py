"""Heads, which turn hidden states into logits, losses and scores; their output weight is the embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck
from cram.model.layers import LayerNorm

# Rows whose logits are in memory at a time while scoring.
_SCORE_ROWS = 1024


class TiedHead(nn.Module):
    """Logits are the product of the hidden states and the embedding; no layer before it.

    Args:
        embedding: the model's embedding, whose weight is shared.
        bias: whether a bias is added to the logits.
    """

    def __init__(self, embedding: nn.Embedding, bias: bool = False) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(embedding.num_embeddings)) if bias else None
        # In a tuple, so that torch registers, saves and moves the tied weight once, with the model.
        self._tied = (embedding,)

    @property
    def output_weight(self) -> Tensor:
        """The embedding, (vocab_size, width)."""
        return self._tied[0].weight

    def transform(self, hidden: Tensor) -> Tensor:
        """The layers between the hidden states and the output weight: (..., width) -> (..., width)."""
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocab_size) of hidden states (..., width)."""
        return F.linear(self.transform(hidden), self.output_weight, self.bias)

    def loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Sum of the labels' negative log-likelihoods in nats, an fp32 scalar.

        Args:
            hidden: hidden states (N, width).
            labels: int64 (N); -100 is ignored.
        """
        return ck.linear_cross_entropy(
            self.transform(hidden), self.output_weight, labels, bias=self.bias, reduction="sum"
        )

    @torch.no_grad()
    def draw(self, hidden: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a token at each position from the predictions: int64 (N).

        Args:
            hidden: hidden states (N, width).
            generator: of the draws, on the device of the hidden states.
        """
        drawn = []
        for rows in hidden.split(_SCORE_ROWS):
            # The largest of p / e, with exponential e, is a draw from p; unlike multinomial, it bears NaN.
            chances = self(rows).float().softmax(-1)
            drawn.append((chances / torch.empty_like(chances).exponential_(generator=generator)).argmax(-1))
        return torch.cat(drawn)

    @torch.no_grad()
    def score(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score each position's prediction.

        Args:
            hidden: hidden states (N, width).
            labels: int64 (N); -100 is ignored.

        Returns:
            nats: fp32 (N), 0 where the label is -100.
            correct: bool (N), whether the likeliest token is the label; False where the label is -100.
        """
        nats, correct = [], []
        for rows, targets in zip(hidden.split(_SCORE_ROWS), labels.split(_SCORE_ROWS), strict=True):
            logits = self(rows)
            nats.append(ck.cross_entropy(logits, targets, reduction="none"))
            correct.append(logits.argmax(-1) == targets)
        return torch.cat(nats), torch.cat(correct)


class MaskedHead(TiedHead):
    """Dense layer, GELU and LayerNorm, then the product with the embedding.

    Source: arXiv:1810.04805 appendix A.2 and arXiv:2412.13663, changed: nothing, as `ModernBertForMaskedLM` has it
    without biases, and `BertForMaskedLM` with them.

    Args:
        embedding: the model's embedding, whose weight is shared.
        eps: epsilon of the norm.
        biases: whether dense layer and norm have biases.
        output_bias: whether a bias is added to the logits.
    """

    def __init__(self, embedding: nn.Embedding, eps: float, biases: bool = False, output_bias: bool = False) -> None:
        super().__init__(embedding, output_bias)
        width = embedding.embedding_dim
        self.dense = nn.Linear(width, width, bias=biases)
        self.norm = LayerNorm(width, eps, biases)

    def transform(self, hidden: Tensor) -> Tensor:
        """Dense layer, GELU and LayerNorm: (..., width) -> (..., width)."""
        normal: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return normal
