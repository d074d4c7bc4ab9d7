"""The held-out loss of a causal model by the length of the context: how much the model gains from earlier tokens.

Source: arXiv:2001.08361 section 3.2.1 and figure 7, which compare transformers with LSTMs by it; changed: contexts are
taken together from one power of two to the next.
"""

from typing import Any

import torch

from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.scores import score_batches


def nats_by_position(model: Any, rows: HeldOutSet, device: torch.device) -> list[dict[str, float]]:
    """Compute the mean nats of the tokens that have about equally many tokens before them in their row.

    A row of held-out text holds one document, or one window of it.

    Returns:
        For contexts of 1, 2 to 3, 4 to 7 tokens and so on, as far as there are predicted tokens: `least` and `most`
        tokens of context, `nats_per_token` and `predicted_tokens`.
    """
    seq_len = rows.labels.shape[1]
    bins = seq_len.bit_length()
    nats = torch.zeros(bins, dtype=torch.float64)
    counts = torch.zeros(bins, dtype=torch.int64)
    # A prediction at position p of a row has read p + 1 tokens.
    bin_of_position = torch.tensor([(position + 1).bit_length() - 1 for position in range(seq_len)])
    for _, slots, losses, _ in score_batches(model, rows, device):
        place = bin_of_position[slots % seq_len]
        nats.index_add_(0, place, losses.double().cpu())
        counts += torch.bincount(place, minlength=bins)
    return [
        {
            "least": 2**index,
            "most": min(2 ** (index + 1) - 1, seq_len),
            "nats_per_token": float(nats[index] / counts[index]),
            "predicted_tokens": int(counts[index]),
        }
        for index in range(bins)
        if counts[index]
    ]
