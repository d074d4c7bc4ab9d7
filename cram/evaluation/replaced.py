"""How well a discriminator tells which tokens of held-out text its generator has replaced."""

from typing import Any

import torch
from torch.nn import functional as F

from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.scores import BATCH_ROWS
from cram.objectives.batch import IGNORED
from cram.objectives.replaced import ReplacedBatch, fill


@torch.no_grad()
def replaced_scores(model: Any, rows: HeldOutSet, device: torch.device) -> dict[str, float]:
    """Fill the hidden tokens of held-out rows by the generator, and let the discriminator judge all tokens, in fp32.

    Returns:
        `nats_per_token` of its verdicts, `accuracy`, and `replaced_share`, the share of the tokens that are not the
        original ones: a discriminator that knows nothing is right for all others.
    """
    nats = right = replaced_tokens = judged_tokens = 0.0
    for begin in range(0, len(rows.tokens), BATCH_ROWS):
        part = slice(begin, begin + BATCH_ROWS)
        labels = rows.labels[part].flatten()
        slots = (labels != IGNORED).nonzero().squeeze(1)
        judged = (rows.documents[part] == 0).flatten().to(device)
        batch = ReplacedBatch(
            inputs=rows.inputs[part].to(device),
            documents=rows.documents[part].to(device),
            labels=labels[slots].to(device),
            predicted=len(slots),
            slots=slots.to(device),
            original=rows.tokens[part].to(device),
            seed=begin,
        )
        filled = fill(model.head(model(batch.inputs, batch.documents, batch.slots)), batch)
        replaced = (filled != batch.original).flatten()[judged]
        verdicts = model.discriminate(filled, batch.documents)[judged]
        nats += float(F.binary_cross_entropy_with_logits(verdicts, replaced.float(), reduction="sum"))
        right += int(((verdicts > 0) == replaced).sum())
        replaced_tokens += int(replaced.sum())
        judged_tokens += len(replaced)
    total = max(judged_tokens, 1.0)
    return {"nats_per_token": nats / total, "accuracy": right / total, "replaced_share": replaced_tokens / total}
