"""What turns hidden states into a loss: heads that are tied to the embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cram_kernels as ck
from cram.model.layers import LayerNorm

# Rows whose logits are held at a time while scoring.
_SCORE_ROWS = 1024


class TiedHead(nn.Module):
    """The embedding's transpose as decoder, without a bias and with nothing before it."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        # In a tuple, so that the tied weight is registered, saved and moved once: with the model.
        self._tied = (embedding,)

    @property
    def decoder_weight(self) -> Tensor:
        """(vocab_size, width): the embedding, which decodes too."""
        return self._tied[0].weight

    def transform(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width), what the decoder reads."""
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocab_size) of hidden states (..., width)."""
        return F.linear(self.transform(hidden), self.decoder_weight)

    def loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Sum of the nats of labels int64 (N), -100 ignored, given hidden (N, width): an fp32 scalar."""
        return ck.linear_cross_entropy(self.transform(hidden), self.decoder_weight, labels, reduction="sum")

    @torch.no_grad()
    def score(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """How well each position of hidden (N, width) predicts its label int64 (N).

        Returns:
            nats fp32 (N), 0 where the label is -100, and correct bool (N), False there.
        """
        nats, correct = [], []
        for rows, wanted in zip(hidden.split(_SCORE_ROWS), labels.split(_SCORE_ROWS), strict=True):
            logits = self(rows)
            nats.append(ck.cross_entropy(logits, wanted, reduction="none"))
            correct.append(logits.argmax(-1) == wanted)
        return torch.cat(nats), torch.cat(correct)


class MaskedHead(TiedHead):
    """Dense layer, GELU and LayerNorm, then the embedding's transpose as decoder; no biases.

    Source: arXiv:1810.04805 appendix A.2 and arXiv:2412.13663, changed: nothing, as `ModernBertForMaskedLM` has it.
    """

    def __init__(self, embedding: nn.Embedding, eps: float) -> None:
        super().__init__(embedding)
        width = embedding.embedding_dim
        self.dense = nn.Linear(width, width, bias=False)
        self.norm = LayerNorm(width, eps)

    def transform(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width), what the decoder reads."""
        return self.norm(F.gelu(self.dense(hidden)))
