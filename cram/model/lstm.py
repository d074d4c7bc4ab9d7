"""The recurrent language model with which Kaplan et al. compare their decoder: residual blocks of one LSTM layer each.

    each block:  x = x + lstm(RMSNorm(x))
    lstm, in the order of a document:  i | f | g | o = input x_t + recurrent h_(t-1) + bias
                                       c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g),  h_t = sigmoid(o) tanh(c_t)
    logits = RMSNorm(x) @ embedding^T

Documents that share a row are computed side by side, each from an empty state and filled up to the longest one. What
fills them up comes after their last token, so it changes none of the results. torch's LSTM is much slower on documents
of different lengths that are packed without filling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.model.heads import TiedHead
from cram.model.layers import FusedLinear, RMSNorm, make_dropout
from cram.model.packing import document_positions, document_starts
from cram.model.transformer import Architecture, Transformer

GATES = 4


@dataclass(frozen=True)
class SideBySide:
    """The documents of some rows, one beside the other.

    Attributes:
        places: int64 (longest, documents), the index into rows * seq_len of each document's tokens, in a column; 0
            behind the last one.
        back: int64 (rows * seq_len), where each position is in the flat `places`.
    """

    places: Tensor
    back: Tensor


def put_side_by_side(documents: Tensor) -> SideBySide:
    """Put packed documents side by side; waits for the device.

    Args:
        documents: int (rows, seq_len), the document of each position within its row; a document lies in one piece.
    """
    starts = document_starts(documents)
    positions = document_positions(starts).flatten()
    column = starts.flatten().cumsum(0) - 1
    longest, columns = int(positions.max()) + 1, int(column[-1]) + 1
    back = positions * columns + column
    places = torch.zeros(longest * columns, dtype=torch.int64, device=documents.device)
    places[back] = torch.arange(documents.numel(), device=documents.device)
    return SideBySide(places.view(longest, columns), back)


class LSTMBlock(nn.Module):
    """One layer: hidden + lstm(norm(hidden)).

    The weights of the four gates lie in linear layers of our own, so that they are counted, drawn and orthogonalised
    as those of other models are.

    Args:
        config: size of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.input = FusedLinear(config.width, (config.width,) * GATES)
        self.recurrent = FusedLinear(config.width, (config.width,) * GATES)
        self.bias = nn.Parameter(torch.empty(GATES * config.width))
        self.dropout = make_dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the block to documents side by side: (longest, documents, width) -> the same shape."""
        device = hidden.device.type
        enabled = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if enabled else self.bias.dtype
        weights = [part.to(dtype) for part in (self.input.weight, self.recurrent.weight, self.bias)]
        empty = torch.zeros_like(hidden[:1], dtype=dtype)
        # torch adds two biases, of which one suffices.
        parameters = [*weights, torch.zeros_like(weights[2])]
        normal = self.norm(hidden).to(dtype)
        with torch.autocast(device, enabled=False):
            states = torch.lstm(
                normal, (empty, empty), parameters, True, 1, 0.0, torch.is_grad_enabled(), False, False
            )[0]
        changed: Tensor = hidden + self.dropout(states)
        return changed


class LSTMModel(Transformer):
    """The language model of `model.kind: lstm`. `model.heads` and `model.mlp_width` have no meaning for it.

    It is always causal.

    Source: arXiv:2001.08361 section 3.2.1 (LSTMs beside transformers) and arXiv:1402.1128 for the layer without
    projection, changed: residual blocks with RMSNorm before the layer, which let deep ones train; one bias instead of
    two.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        architecture = Architecture(norm=RMSNorm, embedding_norm=False, causal=True, rotary=False)
        super().__init__(config, vocab_size, architecture)
        self.head = TiedHead(self.embedding)

    def new_block(self, index: int) -> nn.Module:
        """A block of one LSTM layer."""
        return LSTMBlock(self.config)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew: matrices as `Transformer` does, biases 0, but 1 for the gate that forgets.

        Source of the 1: Jozefowicz et al., "An Empirical Exploration of Recurrent Network Architectures" (2015).
        """
        super().initialise(seed)
        for block in self.blocks:
            assert isinstance(block, LSTMBlock)
            block.bias.zero_()
            block.bias[self.config.width : 2 * self.config.width] = 1.0

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, slots: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Compute the hidden states after the final norm; arguments and result as in `Transformer.forward`."""
        pieces = put_side_by_side(torch.zeros_like(tokens) if documents is None else documents)
        hidden = self.embedding(tokens.flatten()[pieces.places])
        for block in self.blocks:
            hidden = block(hidden)
        # A lookup, because its gradient is deterministic.
        chosen = F.embedding(pieces.back if slots is None else pieces.back[slots], hidden.flatten(0, 1))
        final: Tensor = self.final_norm(chosen)
        return final
