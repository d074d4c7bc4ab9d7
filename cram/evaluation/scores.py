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

from cram.distributed.ranks import ALONE, Ranks
from cram.evaluation.halves import HALVES
from cram.evaluation.held_out import HeldOutSet
from cram.objectives.batch import IGNORED

BATCH_ROWS = 64
# How held-out text is scored, and the name of bits per byte.
BITS_NAMES = {"masked": "bits_per_masked_byte", "causal": "bits_per_byte"}
LEAST_SHOWN_SHARE = 0.001  # share of unknown bytes below which there is no note


@torch.no_grad()
def score_batches(
    model: Any, rows: HeldOutSet, device: torch.device, ranks: Ranks = ALONE
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Score the predictions of a model in fp32, some rows at a time, on each rank a share of them.

    Yields:
        first: number of the first row of the batch.
        slots: int64 (n) on the CPU, indices into these rows * seq_len of the predicted tokens.
        losses: fp32 (n) on the device, their nats.
        correct: bool (n) on the device, whether the likeliest token is the label.
    """
    for begin in range(ranks.rank * BATCH_ROWS, len(rows.tokens), ranks.size * BATCH_ROWS):
        ranks.enter(ranks.state[0])
        batch = slice(begin, begin + BATCH_ROWS)
        labels = rows.labels[batch].flatten()
        slots = (labels != IGNORED).nonzero().squeeze(1)
        hidden = model(rows.inputs[batch].to(device), rows.documents[batch].to(device), slots.to(device))
        yield begin, slots, *model.head.score(hidden, labels[slots].to(device))


def evaluate(model: Any, rows: HeldOutSet, device: torch.device, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Compute the scores of a model in fp32. Each rank scores a share of the rows, and the scores are those of all.

    Returns:
        By name, as `score_names` lists them: nats per predicted token, bits per byte, share of the predictions that
        are right, and the number of predicted tokens. Then the same scores of each half of the held-out text, by its
        name in HALVES; None for a half without a predicted token, and for rows whose halves are not known.
    """
    seq_len = rows.labels.shape[1]
    # Of each row: nats, predictions that are right, predicted tokens.
    sums = torch.zeros(len(rows.labels), 3, dtype=torch.float64)
    for first, slots, losses, is_correct in score_batches(model, rows, device, ranks):
        figures = torch.stack([losses.double(), is_correct.double(), torch.ones_like(losses, dtype=torch.float64)], 1)
        sums.index_add_(0, first + slots // seq_len, figures.cpu())
    ranks.sum(sums)
    scores: dict[str, Any] = dict(_scores(sums, rows.predicted_bytes, rows.objective))
    for number, half in enumerate(HALVES):
        scores[half] = None
        if rows.halves is not None and rows.row_bytes is not None:
            chosen = rows.halves == number
            if sums[chosen, 2].any():
                scores[half] = _scores(sums[chosen], int(rows.row_bytes[chosen].sum()), rows.objective)
    return scores


def _scores(sums: Tensor, text_bytes: int, objective: str) -> dict[str, float]:
    """Name the scores of some rows.

    Args:
        sums: float64 [rows, 3], nats, right predictions and predicted tokens of each row.
        text_bytes: that the predicted tokens stand for.
    """
    nats, correct, predicted = sums.sum(0).tolist()
    bits_per_byte = nats / math.log(2) / max(text_bytes, 1)
    scores = (nats / predicted, bits_per_byte, correct / predicted, int(predicted))
    return dict(zip(score_names(objective), scores, strict=True))


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
