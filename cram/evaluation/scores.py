"""The loss of a model on held-out rows.

nats_per_token is the mean negative log likelihood of a predicted token. Bits per byte is the same sum divided by the
UTF-8 bytes of the text that these tokens stand for, so models with different tokenizers compare. For a masked model it
is called bits_per_masked_byte, because the model sees the rest of the text on both sides.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cram.evaluation.held_out import HeldOutSet
from cram.objectives.batch import IGNORED

BATCH_ROWS = 64
# How held-out text is scored, and the name of bits per byte.
BITS_NAMES = {"masked": "bits_per_masked_byte", "causal": "bits_per_byte"}
LEAST_SHOWN_SHARE = 0.001  # share of unknown bytes below which there is no note


@torch.no_grad()
def score_batches(model: Any, rows: HeldOutSet, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Score the predictions of a model in fp32, some rows at a time.

    Yields:
        slots: int64 (n) on the CPU, indices into these rows * seq_len of the predicted tokens.
        losses: fp32 (n) on the device, their nats.
        correct: bool (n) on the device, whether the likeliest token is the label.
    """
    for begin in range(0, len(rows.tokens), BATCH_ROWS):
        batch = slice(begin, begin + BATCH_ROWS)
        labels = rows.labels[batch].flatten()
        slots = (labels != IGNORED).nonzero().squeeze(1)
        hidden = model(rows.inputs[batch].to(device), rows.documents[batch].to(device), slots.to(device))
        yield slots, *model.head.score(hidden, labels[slots].to(device))


def evaluate(model: Any, rows: HeldOutSet, device: torch.device) -> dict[str, float]:
    """Compute the scores of a model in fp32.

    Returns:
        By name, as `score_names` lists them: nats per predicted token, bits per byte, share of the predictions that
        are right, and the number of predicted tokens.
    """
    nats = correct = 0.0
    for _, losses, is_correct in score_batches(model, rows, device):
        nats += float(losses.double().sum())
        correct += float(is_correct.sum())
    predicted = int((rows.labels != IGNORED).sum())
    bits_per_byte = nats / math.log(2) / max(rows.predicted_bytes, 1)
    scores = (nats / predicted, bits_per_byte, correct / predicted, predicted)
    return dict(zip(score_names(rows.objective), scores, strict=True))


def score_names(objective: str) -> tuple[str, str, str, str]:
    """Names of the scores, in the order of `evaluate`.

    Args:
        objective: how held-out text is scored, "masked" or "causal".
    """
    return ("nats_per_token", BITS_NAMES[objective], "accuracy", "predicted_tokens")


def unknown_note(share: float) -> str:
    """A note on bytes that do not count, to append to a score; empty below 0.1% of them.

    Args:
        share: of the text's bytes that the unknown token stands for.
    """
    if share < LEAST_SHOWN_SHARE:
        return ""
    return f"; {share:.1%} of the text's bytes are behind the unknown token and not counted"
